"""Field types of requests in other APIs than OpenAI's chat."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, StringConstraints

from llama_orch.http.server.bodies import finite

MAX_TOKENS = 16_777_216

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://", max_length=8192)]


def _finite(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    # JSON has no infinity, but 1e999 is parsed as one
    if not finite(value):
        raise ValueError("numbers must be finite")
    return value


Object = Annotated[dict[str, JsonValue], AfterValidator(_finite)]
"""A JSON object without infinite numbers, so that it can be serialized again."""


class Lenient(BaseModel):
    """A model of another API, whose clients may be newer than this release: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


def release_gil(item: object) -> object:
    """Run Python code for each item, so that other threads get a turn: pydantic alone holds the interpreter's lock
    through all of 30,000 items."""
    return item
