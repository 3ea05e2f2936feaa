"""Bodies of requests: from bytes to a model of the contracts, or to a 400 that names each wrong field."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import trio
from pydantic import BaseModel, JsonValue, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.validation import dotted, invalid_fields
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.receiving import Source

SHOWN_PROBLEMS = 20
SHOWN = 128
FEW = Shape(values=1_000, nodes=500)
"""The shape of what people and daemons write about one thing."""
IN_THREAD_BYTES = 32 << 10
ONE_AT_A_TIME = trio.CapacityLimiter(1)
"""Large bodies share the interpreter's lock with the event loop: one of them leaves it more than half of the time."""

Model = TypeVar("Model", bound=BaseModel)
Made = TypeVar("Made")


async def read(source: Source, model: type[Model], shape: Shape = FEW, limit: int | None = None) -> Model:
    """The body of `source` as `model`. Raises ApiError as `received` and `parsed` do."""
    body = await source.body(limit, shape)
    return await aside(len(body), partial(parsed, model, body))


async def aside(size: int, make: Callable[[], Made]) -> Made:
    """What `make` makes of a body of `size` bytes: of a large one beside the event loop."""
    if size < IN_THREAD_BYTES:
        return make()
    return await trio.to_thread.run_sync(make, limiter=ONE_AT_A_TIME)


def parsed(model: type[Model], body: bytes | bytearray) -> Model:
    """`body` as `model`; no text is taken for a number, and none for a truth. Raises ApiError 400 that names each wrong
    field. What pydantic takes to build all errors is bounded by the shape that `body` was received with."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise ApiError(400, invalid((dotted(each.location), each.text) for each in invalid_fields(error))) from error


def finite(value: JsonValue) -> bool:
    """Whether all numbers in `value` are finite: JSON has no infinity, but 1e999 is read as one."""
    rest = [value]
    while rest:
        found = rest.pop()
        if isinstance(found, dict):
            rest.extend(found.values())
        elif isinstance(found, list):
            rest.extend(found)
        elif isinstance(found, float) and not math.isfinite(found):
            return False
    return True


def invalid(problems: Iterable[tuple[str, str]]) -> ErrorBody:
    """The body of a 400 that names each wrong field, at most SHOWN_PROBLEMS of them."""
    found = list(problems)
    fields = [FieldProblem(field=field[:SHOWN], problem=problem) for field, problem in found[:SHOWN_PROBLEMS]]
    text = "; ".join(f"{item.field}: {item.problem}" for item in fields)
    more = len(found) - len(fields)
    message = f"{text}; and {more} more" if more > 0 else text
    return ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, fields=fields)
