"""What a key permits: endpoints, models, priority. Pure functions."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.keys import KeySpec
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.model_names import model_key
from llama_orch.engines.wire.passage import Passage
from queen_rbee.keys.endpoints import endpoint_of, open_to_every_key

NAME_SHOWN = 128


def use_refusal(key: KeySpec, method: str, path: str, wall: datetime) -> ApiError | None:
    """Return why `key` may not send `method` and `path` at the time `wall`: 401 if it has expired, 403, or None."""
    if key.ends is not None and key.ends <= wall:
        message = f"the key {key.name} expired at {key.ends.isoformat(timespec='seconds')}"
        return refused(401, ErrorCode.KEY_EXPIRED, message, "Ask the operator for a new key.")
    if open_to_every_key(method, path):
        return None
    endpoint = endpoint_of(method, path)
    if endpoint is None:
        message = f"keys of users do not permit {method} {path[:NAME_SHOWN]}"
        return refused(403, ErrorCode.KEY_FORBIDDEN, message, "The token of the operator does: LLORCH_API_TOKEN.")
    if key.endpoints is not None and endpoint not in key.endpoints:
        message = f"the key {key.name} does not permit the endpoint {endpoint}"
        return refused(403, ErrorCode.KEY_FORBIDDEN, message, f"It permits: {', '.join(key.endpoints)}.")
    return None


def permits_model(key: KeySpec, name: str | None) -> bool:
    """Return whether the key permits the model that a client calls `name`; for a file, that of the file suffices."""
    if key.models is None:
        return True
    asked, pattern = name or "default", _pattern(key.models)
    return bool(pattern.fullmatch(asked) or pattern.fullmatch(model_key(asked)))


@lru_cache(2048)
def _pattern(models: tuple[str, ...]) -> re.Pattern[str]:
    """Only * is special in a pattern."""
    return re.compile("|".join(fnmatch.translate(re.sub(r"([\[?])", r"[\1]", each)) for each in models))


def permitted(key: KeySpec, request: TaskRequest, model: str | None) -> TaskRequest:
    """Return `request` with at most the priority of the key. Raises ApiError 403.

    `model` is the name as the client has sent it: the operator permits names, and decides what they lead to.
    """
    if not permits_model(key, model):
        message = f"the key {key.name} does not permit the model {(model or 'default')[:NAME_SHOWN]!r}"
        hint = f"It permits: {', '.join(key.models or ())[:512]}."
        raise refused(403, ErrorCode.KEY_FORBIDDEN, message, hint, "model")
    if key.priority == "batch" and request.priority == "interactive":
        if "priority" in request.model_fields_set:
            message = f"the key {key.name} does not permit the priority interactive"
            raise refused(403, ErrorCode.KEY_FORBIDDEN, message, "Send batch, or none.", "priority")
        return request.model_copy(update={"priority": "batch"})
    return request


def model_named(request: TaskRequest, passage: Passage | None) -> str | None:
    """Return the model as the client has named it: /v1 resolves the name before admission."""
    named = (passage.body if passage else {}).get("model")
    return named if isinstance(named, str) else request.model_ref


def refused(
    status: int, code: ErrorCode, message: str, hint: str, field: str | None = None, headers: Mapping[str, str] = {}
) -> ApiError:
    fields: Sequence[FieldProblem] | None = [FieldProblem(field=field, problem="is not permitted")] if field else None
    sent = {**headers, "www-authenticate": "Bearer"} if status == 401 else headers
    body = ErrorBody(code=code, message=message, hint=hint, fields=list(fields) if fields else None)
    return ApiError(status, body, tuple(sent.items()))
