"""Bodies of requests: from bytes to a model of the contracts, or to a 400 that names each wrong field."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from quart import request

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from queen_rbee.refusals import invalid

Model = TypeVar("Model", bound=BaseModel)


async def body_of(model: type[Model], limit: int | None = None) -> Model:
    """The body of Quart's current request. Raises ApiError 413 beyond `limit` bytes, 400 as `parsed` does."""
    body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    if limit is not None and len(body) > limit:
        raise too_long(limit)
    return parsed(model, body)


def too_long(limit: int) -> ApiError:
    """What is answered to a body of more than `limit` bytes."""
    message = f"the body is longer than {limit} bytes"
    return ApiError(413, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message))


def parsed(model: type[Model], body: bytes) -> Model:
    """`body` as `model`; no text is taken for a number, and none for a truth. Raises ApiError 400 that names each wrong
    field."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise ApiError(400, invalid(problem(item["loc"], item["msg"]) for item in found)) from error


def problem(location: tuple[int | str, ...], message: str) -> tuple[str, str]:
    """pydantic's words for one field in ours: (field, what is wrong with it)."""
    words = message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "is not a known field")
    return ".".join(map(str, location)) or "body", words.replace("Input should be", "must be")
