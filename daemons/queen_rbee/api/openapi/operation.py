"""What is declared about an operation of the API: plain values, and nothing of how they are written down."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel, JsonValue

Schema = Mapping[str, JsonValue]
Method = Literal["GET", "POST", "PUT", "DELETE"]
Body = type[BaseModel] | Schema

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
TEXT: Schema = {"type": "string"}
UUID: Schema = {"type": "string", "format": "uuid"}
ARTIFACT_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
VARIABLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Parameter:
    """A parameter in the query or a header; `example` None for none."""

    name: str
    about: str
    schema: Schema
    place: Literal["query", "header"] = "query"
    example: JsonValue = None


@dataclass(frozen=True)
class Answer:
    """An answer: its content by media type (none for one without a body), the headers it has besides those that every
    answer has, and which part of it (a JSON pointer) is which variable of other operations' paths."""

    about: str
    content: Mapping[str, Body] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def document(about: str, body: Body, *headers: str, **names: str) -> Answer:
    """An answer in JSON."""
    return Answer(about, {JSON: body}, headers, names)


@dataclass(frozen=True)
class Operation:
    """One method of one path. `errors` are the statuses of its refusals besides those that follow from what it takes;
    an `open` one wants no token."""

    method: Method
    path: str
    name: str
    summary: str
    answers: Mapping[int, Answer]
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    about: str = ""
    open: bool = False
    body_optional: bool = False

    @property
    def variables(self) -> list[str]:
        """The names in the path's braces."""
        return VARIABLE.findall(self.path)

    @property
    def refusals(self) -> list[int]:
        """The status of every error that it may answer."""
        implied = {500} if self.open else {401, 403, 500}
        implied |= {404} if self.variables else set()
        implied |= {400, 408, 413, 415} if self.body else set()
        implied |= {400} if any(parameter.place == "query" for parameter in self.parameters) else set()
        return sorted(implied.union(self.errors) - set(self.answers))

    @property
    def tag(self) -> str:
        """What it is about: the first word of its path that is no version."""
        first, *rest = self.path.strip("/").split("/")
        return rest[0] if first == "v2" else first if first == "v1" else "daemon"


def reading(
    path: str,
    name: str,
    summary: str,
    body: Body,
    *parameters: Parameter,
    errors: tuple[int, ...] = (),
    **names: str,
) -> Operation:
    """An operation that only shows something."""
    answer = document(f"{summary}.", body, **names)
    return Operation("GET", path, name, summary, {200: answer}, parameters=parameters, errors=errors)


def for_everybody(operation: Operation) -> Operation:
    """`operation`, wanting no token."""
    return replace(operation, open=True)
