"""Bodies of requests: from bytes to a model of the contracts, or to a 400 that names each wrong field."""

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem

SHOWN_PROBLEMS = 20
SHOWN = 128

Model = TypeVar("Model", bound=BaseModel)


def parsed(model: type[Model], body: bytes) -> Model:
    """`body` as `model`; no text is taken for a number, and none for a truth. Raises ApiError 400 that names each wrong
    field."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise ApiError(400, invalid(problem(item["loc"], item["msg"]) for item in found)) from error


def invalid(problems: Iterable[tuple[str, str]]) -> ErrorBody:
    """The body of a 400 that names each wrong field, at most SHOWN_PROBLEMS of them."""
    fields = [FieldProblem(field=field[:SHOWN], problem=problem) for field, problem in problems]
    text = "; ".join(f"{item.field}: {item.problem}" for item in fields[:SHOWN_PROBLEMS])
    more = len(fields) - SHOWN_PROBLEMS
    message = f"{text}; and {more} more" if more > 0 else text
    return ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, fields=fields[:SHOWN_PROBLEMS])


def problem(location: tuple[int | str, ...], message: str) -> tuple[str, str]:
    """pydantic's words for one field in ours: (field, what is wrong with it)."""
    words = message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "is not a known field")
    return ".".join(map(str, location)) or "body", words.replace("Input should be", "must be")
