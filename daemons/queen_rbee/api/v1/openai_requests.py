"""Translation of an OpenAI request into a task for admission and a passage for the engine. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.openai import Chat, Completions, Embeddings, EndpointRequest, GenerationRequest, Rerank
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.contracts.validation import indexed, invalid_fields
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.http.server.bodies import finite, invalid
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.preferences import preferred_wait_s
from queen_rbee.pools.model_lookup import ModelTarget

BODIES: Mapping[Endpoint, type[EndpointRequest]] = {
    "chat": Chat,
    "completions": Completions,
    "embeddings": Embeddings,
    "rerank": Rerank,
}
WORKLOADS: Mapping[Endpoint, Literal["embedding", "rerank"]] = {"embeddings": "embedding", "rerank": "rerank"}
HEADERS = {"session_id": "X-Session-Id", "priority": "X-Priority", "deadline_ms": "X-Deadline-Ms"}
CLIENT_FIELDS = {**HEADERS, "model_ref": "model", "placement": "model"}
"""The client's name for each field of a task."""
SEEDS = 2**32
SHAPE = Shape(values=400_000, nodes=100_000)
"""Enough for a prompt of 300,000 token ids, or 1,000 messages with 100 objects, arrays and keys each."""


@dataclass(frozen=True)
class OpenAiRequest:
    """A valid request: the fields that routing needs, and the request to the engine."""

    parsed: EndpointRequest
    passage: Passage

    @property
    def streamed(self) -> bool:
        return isinstance(self.parsed, GenerationRequest) and bool(self.parsed.stream)

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        options = self.parsed.stream_options if isinstance(self.parsed, GenerationRequest) else None
        return bool(options and options.include_usage)


def parse_request(endpoint: Endpoint, body: bytes | bytearray) -> OpenAiRequest:
    """Parse a request body. Raises ApiError 400 that names each invalid field."""
    document = _document(body)
    try:
        parsed = BODIES[endpoint].model_validate(document)
        document.pop("keep_alive", None)  # for this daemon
        return OpenAiRequest(parsed, Passage(endpoint, document, len(body), mark=sha256(body).digest()))
    except ValidationError as error:
        raise _invalid(error) from error


def task_request(
    parsed: EndpointRequest, endpoint: Endpoint, target: ModelTarget, headers: Mapping[str, str]
) -> TaskRequest:
    """Return the task for admission and placement. Raises ApiError 400 that names each invalid header."""
    fields: dict[str, object] = {"workload": WORKLOADS.get(endpoint, "completion"), "model_ref": target.model_ref}
    fields["keep_alive"] = parsed.keep_alive
    fields |= {field: headers[name.lower()] for field, name in HEADERS.items() if name.lower() in headers}
    fields["wait_s"] = preferred_wait_s(headers.get("prefer"))
    if target.pool_id:
        fields["placement"] = {"mode": "pin", "pin_pool_id": target.pool_id}
    if isinstance(parsed, GenerationRequest):
        fields |= _limits(parsed)
    try:
        return TaskRequest.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from error


def _limits(parsed: GenerationRequest) -> dict[str, object]:
    """Return size and seed as far as a task can hold them; OpenAI allows a wider range."""
    tokens = max(parsed.max_tokens or 0, parsed.max_completion_tokens or 0)
    seed = parsed.seed if parsed.seed is not None and 0 <= parsed.seed < SEEDS else None
    return {"max_tokens": tokens if tokens > 0 else None, "seed": seed}


def _document(body: bytes | bytearray) -> dict[str, JsonValue]:
    """Parse a JSON object: nested less than 200 deep, valid UTF-8, finite numbers."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, invalid([("body", f"is not JSON: {error}")])) from error
    if not finite(document):
        raise ApiError(400, invalid([("body", "is not JSON: it has a number that is not finite")]))
    if not isinstance(document, dict):
        raise ApiError(400, invalid([("body", "must be a JSON object")]))
    return document


def _invalid(error: ValidationError) -> ApiError:
    return ApiError(400, invalid((_path(each.location), each.text) for each in invalid_fields(error)))


def _path(location: tuple[int | str, ...]) -> str:
    """Format a field as OpenAI does: `messages[0].role`."""
    first, *rest = location
    return indexed((CLIENT_FIELDS.get(str(first), first), *rest))
