"""pydantic's errors as messages."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llama_orch.contracts.validation import InvalidField, dotted, indexed, invalid_fields, summary


class Inner(BaseModel):
    size: int = Field(ge=1, le=9)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    kind: Literal["a", "b"] = "a"
    code: str = Field(default="x", pattern="^[a-z]$")
    inner: list[Inner] = Field(default=[], max_length=2)


def failure(document: object, *, values: bool = False) -> list[InvalidField]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(document)
    return invalid_fields(caught.value, values=values)


@pytest.mark.parametrize(
    ("document", "path", "text"),
    [
        ({}, "name", "is required"),
        ({"name": "n", "colour": 1}, "colour", "is not a known field"),
        ({"name": "n", "kind": "c"}, "kind", "must be 'a' or 'b'"),
        ({"name": "n", "code": "X"}, "code", "must match the pattern ^[a-z]$"),
        ({"name": "n", "inner": [{"size": 0}]}, "inner.0.size", "must be at least 1"),
        ({"name": "n", "inner": [{"size": 10}]}, "inner.0.size", "must be at most 9"),
        ({"name": "n", "inner": [{"size": 1}] * 3}, "inner", "has more than 2 items"),
        ([], "body", "must be a valid dictionary or instance of Outer"),
    ],
)
def test_each_error_has_a_path_and_a_text(document: object, path: str, text: str) -> None:
    assert [(dotted(each.location), each.text) for each in failure(document)] == [(path, text)]


def test_values_are_shown_only_on_request() -> None:
    document = {"name": "n", "inner": [{"size": 0}], "code": "SECRET", "kind": "c"}
    assert "0" not in str([each.text for each in failure(document)])
    kind, code, size = (each.text for each in failure(document, values=True))
    assert (kind, size) == ("must be 'a' or 'b' (got 'c')", "must be at least 1 (got 0)")
    assert "SECRET" not in code


def test_paths_have_two_notations() -> None:
    location = ("inner", 0, "size")
    assert (dotted(location), indexed(location)) == ("inner.0.size", "inner[0].size")
    assert (dotted((), "file"), indexed(())) == ("file", "")


def test_summary_counts_the_fields_it_leaves_out() -> None:
    found = failure({"x": 1, "y": 2, "z": 3})
    assert summary(found, 2) == "name: is required; x: is not a known field; and 2 more"
    assert summary(found[:1], 2) == "name: is required"
