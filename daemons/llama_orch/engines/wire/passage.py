"""A request of a /v1 client on its way to an engine: OpenAI's endpoints, their bodies passed on as they came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pydantic import JsonValue

from llama_orch.contracts.engines import Workload
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.server.bodies import invalid

Endpoint = Literal["completion", "chat", "completions", "embeddings", "rerank"]
"""What a task is put to. `completion` is a /v2 prompt in the engine's own way, the others are OpenAI's endpoints."""
WORKLOADS: Mapping[Endpoint, Workload] = {
    "completion": "completion",
    "chat": "completion",
    "completions": "completion",
    "embeddings": "embedding",
    "rerank": "rerank",
}


@dataclass(frozen=True, eq=False)
class Passage:
    """What one OpenAI endpoint is asked. What `body` says of `stream` is not passed on: chat and completions are always
    asked for as a stream, and so that their tokens are counted; embeddings and rerank never are."""

    endpoint: Endpoint
    body: Mapping[str, JsonValue]
    size: int
    """Bytes of the body as it came: the time limit of the first token grows with it."""
    counts_first: bool = False
    """Whether the client is to be told the prompt's tokens before the answer, where the engine can tell them."""
    mark: bytes | None = None
    """A digest of the body as it came, by which a client is known that sends it again."""


def endpoints_for(kind: frozenset[Endpoint], workloads: Sequence[Workload] | None) -> frozenset[Endpoint]:
    """Of the endpoints that a `kind` of engine has, those for `workloads`; None stands for all."""
    if workloads is None:
        return kind
    return frozenset(endpoint for endpoint in kind if WORKLOADS[endpoint] in workloads)


@cache
def workloads_of(endpoints: frozenset[Endpoint]) -> tuple[Workload, ...]:
    """The workloads that `endpoints` are for, sorted."""
    return tuple(sorted({WORKLOADS[endpoint] for endpoint in endpoints}))


def passage_for(request: TaskRequest) -> Passage | None:
    """The OpenAI request that an embedding or a rerank is, None for a completion. Raises ApiError for what lacks."""
    if request.workload == "completion":
        _need(request.prompt is not None, "prompt", "is missing and required for a completion")
        return None
    size = len(request.prompt or "") + sum(map(len, request.inputs))
    if request.workload == "embedding":
        texts: list[JsonValue] = [*request.inputs] or ([request.prompt] if request.prompt else [])
        _need(bool(texts), "inputs", "are missing and required for an embedding")
        return Passage("embeddings", {"input": texts}, size)
    _need(request.prompt is not None, "prompt", "is missing: the query that the inputs are ranked by")
    _need(bool(request.inputs), "inputs", "are missing: the documents to rank")
    return Passage("rerank", {"query": request.prompt, "documents": [*request.inputs]}, size)


def _need(there: bool, field: str, problem: str) -> None:
    if not there:
        raise ApiError(400, invalid([(field, problem)]))
