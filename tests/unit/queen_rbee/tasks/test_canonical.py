"""One document has one text and one id, whatever the order of its members, and another document has another."""

import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from llama_orch.contracts.artifacts import NewArtifact
from queen_rbee.tasks.artifacts import artifact_id, canonical, whole

texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def turned(value: JsonValue) -> JsonValue:
    """`value` with the members of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value


def same(one: JsonValue, other: JsonValue) -> bool:
    """Equal in type, too: 1, 1.0 and true are three values."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def identifier(**fields) -> str:
    new = NewArtifact.model_validate({"kind": "note", **fields})
    return artifact_id(whole(new, canonical(new.content)))


@settings(deadline=None)
@given(values)
def test_the_order_of_members_does_not_matter(value: JsonValue):
    assert canonical(turned(value)) == canonical(value)


@settings(deadline=None)
@given(values)
def test_it_says_the_same_as_the_value_and_writing_it_again_changes_nothing(value: JsonValue):
    text = canonical(value)
    assert same(json.loads(text), value)
    assert canonical(json.loads(text)) == text


ALIKE: list[JsonValue] = [0, 0.0, -0.0, False, None, "", "0", [], {}, [0], [[]], [0, 0], {"0": 0}, {"": None}, [None]]
alike = st.sampled_from(ALIKE)


@settings(deadline=None)
@given(alike, alike)
def test_two_values_have_one_text_only_if_they_are_the_same(one: JsonValue, other: JsonValue):
    assert (canonical(one) == canonical(other)) is same(one, other)


@settings(deadline=None)
@given(values)
def test_what_a_client_computes_in_python_as_the_manual_says_is_the_id(value: JsonValue):
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
def test_each_rule_by_an_example(value: JsonValue, text: str):
    assert canonical(value) == text


def test_an_id_that_was_given_once_is_given_for_ever():
    assert identifier(tags=["x"], content={"b": 1, "a": "é"}) == (
        hashlib.sha256('{"content":{"a":"é","b":1},"kind":"note","parent":null,"tags":["x"]}'.encode()).hexdigest()
    )


def test_each_of_the_four_fields_makes_another_document():
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


def test_what_is_absent_is_the_same_as_what_is_empty():
    assert identifier() == identifier(tags=[], parent=None, content=None)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, [{"a": math.nan}], 10**5000], ids=lambda value: type(value).__name__
)
def test_what_json_has_no_words_for_is_refused(value: JsonValue):
    with pytest.raises(ValueError, match=r"."):
        canonical(value)


def test_text_that_utf8_does_not_have_is_refused():
    new = NewArtifact(kind="note")
    with pytest.raises(ValueError, match="surrogates"):
        whole(new, canonical("\ud800"))
