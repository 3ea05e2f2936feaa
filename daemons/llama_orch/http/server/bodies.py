"""Request bodies: parse them as contract models, or answer 400 with each invalid field."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import trio
from pydantic import BaseModel, JsonValue, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.validation import dotted, invalid_fields
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.receiving import BodySource

PROBLEM_LIMIT = 20
FIELD_NAME_LIMIT = 128
SMALL_BODY = Shape(values=1_000, nodes=500)
"""Limits of a body that describes one object, such as a task or a model."""
IN_THREAD_BYTES = 32 << 10
LARGE_BODY_LIMITER = trio.CapacityLimiter(1)
"""One large body at a time: they share the GIL with the event loop, to which one leaves more than half of the time."""

Model = TypeVar("Model", bound=BaseModel)
Made = TypeVar("Made")


async def read(source: BodySource, model: type[Model], shape: Shape = SMALL_BODY, limit: int | None = None) -> Model:
    """Receive and parse the body of `source`. Raises ApiError as `received` and `parsed` do."""
    body = await source.body(limit, shape)
    return await in_thread_if_large(len(body), partial(parsed, model, body))


async def in_thread_if_large(size: int, make: Callable[[], Made]) -> Made:
    """Call `make`, which parses a body of `size` bytes; in a thread if the body is large."""
    if size < IN_THREAD_BYTES:
        return make()
    return await trio.to_thread.run_sync(make, limiter=LARGE_BODY_LIMITER)


def parsed(model: type[Model], body: bytes | bytearray) -> Model:
    """Parse `body` strictly: text is not accepted for a number or a Boolean.

    Raises ApiError 400 that names each invalid field. The shape that `body` was received with bounds the time and
    memory that pydantic needs for the errors.
    """
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise ApiError(400, invalid((dotted(each.location), each.text) for each in invalid_fields(error))) from error


def finite(value: JsonValue) -> bool:
    """Return whether all numbers in `value` are finite: JSON has no infinity, but 1e999 is parsed as one."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, float) and not math.isfinite(item):
            return False
    return True


def invalid(problems: Iterable[tuple[str, str]]) -> ErrorBody:
    """Return the body of a 400 that names at most PROBLEM_LIMIT of the `problems`: (field, problem)."""
    found = list(problems)
    fields = [FieldProblem(field=field[:FIELD_NAME_LIMIT], problem=problem) for field, problem in found[:PROBLEM_LIMIT]]
    text = "; ".join(f"{item.field}: {item.problem}" for item in fields)
    more = len(found) - len(fields)
    message = f"{text}; and {more} more" if more > 0 else text
    return ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, fields=fields)
