"""From an OpenAI client's request to what admission wants to know and what the engine is asked, or to a 400. Pure."""

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
from queen_rbee.pools.model_lookup import ModelTarget

BODIES: Mapping[Endpoint, type[EndpointRequest]] = {
    "chat": Chat,
    "completions": Completions,
    "embeddings": Embeddings,
    "rerank": Rerank,
}
WORKLOADS: Mapping[Endpoint, Literal["embedding", "rerank"]] = {"embeddings": "embedding", "rerank": "rerank"}
HEADERS = {"session_id": "X-Session-Id", "priority": "X-Priority", "deadline_ms": "X-Deadline-Ms"}
NAMES = {**HEADERS, "model_ref": "model", "placement": "model"}
"""What a client calls the fields of a task."""
SEEDS = 2**32
SHAPE = Shape(values=400_000, nodes=100_000)
"""A prompt of 300,000 tokens as numbers, or 1,000 messages with 100 objects, arrays and keys each."""


@dataclass(frozen=True)
class Asked:
    """A request that was understood: what routing needs of it, and what the engine will be asked."""

    wanted: EndpointRequest
    passage: Passage

    @property
    def streamed(self) -> bool:
        """Whether the client wants a stream."""
        return isinstance(self.wanted, GenerationRequest) and bool(self.wanted.stream)

    @property
    def tells_usage(self) -> bool:
        """Whether its stream shall end with the counts."""
        options = self.wanted.stream_options if isinstance(self.wanted, GenerationRequest) else None
        return bool(options and options.include_usage)


def asked(endpoint: Endpoint, body: bytes | bytearray) -> Asked:
    """What `body` asks of `endpoint`. Raises ApiError 400 that names each wrong field."""
    document = _document(body)
    try:
        wanted = BODIES[endpoint].model_validate(document)
        return Asked(wanted, Passage(endpoint, document, len(body), mark=sha256(body).digest()))
    except ValidationError as error:
        raise _wrong(error) from error


def task_request(
    wanted: EndpointRequest, endpoint: Endpoint, target: ModelTarget, headers: Mapping[str, str]
) -> TaskRequest:
    """What admission and placement go by. Raises ApiError 400 that names each wrong header."""
    fields: dict[str, object] = {"workload": WORKLOADS.get(endpoint, "completion"), "model_ref": target.model_ref}
    fields |= {field: headers[name.lower()] for field, name in HEADERS.items() if name.lower() in headers}
    if target.pool_id:
        fields["placement"] = {"mode": "pin", "pin_pool_id": target.pool_id}
    if isinstance(wanted, GenerationRequest):
        fields |= _limits(wanted)
    try:
        return TaskRequest.model_validate(fields)
    except ValidationError as error:
        raise _wrong(error) from error


def _limits(wanted: GenerationRequest) -> dict[str, object]:
    """What a task can say of its size and its seed; OpenAI allows for more."""
    tokens = max(wanted.max_tokens or 0, wanted.max_completion_tokens or 0)
    seed = wanted.seed if wanted.seed is not None and 0 <= wanted.seed < SEEDS else None
    return {"max_tokens": tokens if tokens > 0 else None, "seed": seed}


def _document(body: bytes | bytearray) -> dict[str, JsonValue]:
    """The JSON object in `body`: nested less than 200 deep, whole characters, finite numbers."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, invalid([("body", f"is not JSON: {error}")])) from error
    if not finite(document):
        raise ApiError(400, invalid([("body", "is not JSON: it has a number that is not finite")]))
    if not isinstance(document, dict):
        raise ApiError(400, invalid([("body", "must be a JSON object")]))
    return document


def _wrong(error: ValidationError) -> ApiError:
    return ApiError(400, invalid((_path(each.location), each.text) for each in invalid_fields(error)))


def _path(location: tuple[int | str, ...]) -> str:
    """A field as OpenAI writes it: `messages[0].role`."""
    first, *rest = location
    return indexed((NAMES.get(str(first), first), *rest))
