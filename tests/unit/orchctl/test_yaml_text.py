"""-o yaml, read back by a YAML parser."""

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchctl.yaml_text import yaml_text

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_parser_reads_the_same_document(document: object) -> None:
    assert yaml.safe_load(yaml_text(document)) == document  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["yes", "null", "~", "1e3", "0x10", "2026-11-30", "- a", "a: b", "#", "\x85\u2028\x7f\ufeff", "'", '"\\', "🦙", ""],
)
def test_strings_stay_strings(text: str) -> None:
    assert yaml.safe_load(yaml_text({text: [text]})) == {text: [text]}


@pytest.mark.parametrize("number", [1e16, 1e-7, -2.5e300, 0.1, 5e-324])
def test_numbers_stay_numbers(number: float) -> None:
    read = yaml.safe_load(yaml_text(number))
    assert isinstance(read, float)
    assert math.isclose(read, number)


def test_half_a_character_is_replaced() -> None:
    assert yaml_text(json.loads('"\\ud800"')) == '"\ufffd"\n'


def test_layout() -> None:
    document = {"pools": [{"pool_id": "a", "models": ["x"], "none": []}, {"pool_id": "b"}], "count": 2, "on": {}}
    assert yaml_text(document) == (  # type: ignore[arg-type]
        'pools:\n  - pool_id: "a"\n    models:\n      - "x"\n    none: []\n  - pool_id: "b"\ncount: 2\n"on": {}\n'
    )
