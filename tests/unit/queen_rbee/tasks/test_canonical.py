"""Equal documents have one canonical text and id, different documents have different ones."""

import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from llama_orch.contracts.artifacts import NewArtifact
from queen_rbee.tasks.artifacts import artifact_id, canonical_document, canonical_json

texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def reverse_members(value: JsonValue) -> JsonValue:
    """Return `value` with the members of every object reversed."""
    if isinstance(value, dict):
        return {key: reverse_members(value[key]) for key in reversed(value)}
    return [reverse_members(each) for each in value] if isinstance(value, list) else value


def same(one: JsonValue, other: JsonValue) -> bool:
    """Compare values and types: 1, 1.0 and true differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def identifier(**fields) -> str:
    new = NewArtifact.model_validate({"kind": "note", **fields})
    return artifact_id(canonical_document(new, canonical_json(new.content)))


@settings(deadline=None)
@given(values)
def test_order_of_members_does_not_matter(value: JsonValue):
    assert canonical_json(reverse_members(value)) == canonical_json(value)


@settings(deadline=None)
@given(values)
def test_canonical_json_round_trips(value: JsonValue):
    text = canonical_json(value)
    assert same(json.loads(text), value)
    assert canonical_json(json.loads(text)) == text


ALIKE: list[JsonValue] = [0, 0.0, -0.0, False, None, "", "0", [], {}, [0], [[]], [0, 0], {"0": 0}, {"": None}, [None]]
alike = st.sampled_from(ALIKE)


@settings(deadline=None)
@given(alike, alike)
def test_different_values_have_different_texts(one: JsonValue, other: JsonValue):
    assert (canonical_json(one) == canonical_json(other)) is same(one, other)


@settings(deadline=None)
@given(values)
def test_id_is_computed_as_the_manual_says(value: JsonValue):
    document = {"kind": "note", "tags": ["b", "a"], "parent": None, "content": value}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert identifier(tags=["b", "a"], content=value) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        ({"é": 1, "z": 2, "Z": 3, "\U0001f600": 4, "\uffff": 5}, '{"Z":3,"z":2,"é":1,"\uffff":5,"\U0001f600":4}'),
        ('"\\/\b\f\n\r\t\x1f\x7f', '"\\"\\\\/\\b\\f\\n\\r\\t\\u001f\x7f"'),
        ([1, 1.0, 0.1, 1e16, 1e-7, -0.0, 10**20], "[1,1.0,0.1,1e+16,1e-07,-0.0,100000000000000000000]"),
        ({}, "{}"),
    ],
)
def test_canonical_examples(value: JsonValue, text: str):
    assert canonical_json(value) == text


def test_id_of_a_known_document_is_stable():
    assert identifier(tags=["x"], content={"b": 1, "a": "é"}) == (
        hashlib.sha256('{"content":{"a":"é","b":1},"kind":"note","parent":null,"tags":["x"]}'.encode()).hexdigest()
    )


def test_every_field_changes_the_id():
    parent = "0" * 64
    ids = [
        identifier(),
        identifier(kind="other"),
        identifier(tags=["a"]),
        identifier(tags=["a", "b"]),
        identifier(tags=["b", "a"]),
        identifier(parent=parent),
        identifier(content=0),
    ]
    assert len(set(ids)) == len(ids)


def test_absent_field_equals_empty_field():
    assert identifier() == identifier(tags=[], parent=None, content=None)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, [{"a": math.nan}], 10**5000], ids=lambda value: type(value).__name__
)
def test_value_that_json_cannot_express_is_refused(value: JsonValue):
    with pytest.raises(ValueError, match=r"."):
        canonical_json(value)


def test_lone_surrogate_is_refused():
    new = NewArtifact(kind="note")
    with pytest.raises(ValueError, match="surrogates"):
        canonical_document(new, canonical_json("\ud800"))
