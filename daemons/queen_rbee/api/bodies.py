"""The bodies of Quart's requests, bounded, as models of the contracts."""

from quart import request

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.bodies import Model, parsed


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
