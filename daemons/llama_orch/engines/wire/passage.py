"""Requests to OpenAI's endpoints whose body is passed through to the engine."""

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
"""`completion` is a /v2 prompt in the engine's native format; the others are OpenAI's endpoints."""
WORKLOADS: Mapping[Endpoint, Workload] = {
    "completion": "completion",
    "chat": "completion",
    "completions": "completion",
    "embeddings": "embedding",
    "rerank": "rerank",
}


@dataclass(frozen=True, eq=False)
class Passage:
    """A request to one OpenAI endpoint.

    The body's `stream` is not passed on: chat and completions are always streamed, with token counts; embeddings and
    rerank never are.
    """

    endpoint: Endpoint
    body: Mapping[str, JsonValue]
    size: int
    """Bytes of the client's body. The time limit for the first token grows with it."""
    counts_first: bool = False
    """Whether the client gets the prompt's token count before the answer, if the engine supports it."""
    mark: bytes | None = None
    """A digest of the client's body, which identifies a client that repeats its request."""


def endpoints_for(kind: frozenset[Endpoint], workloads: Sequence[Workload] | None) -> frozenset[Endpoint]:
    """Return those of a kind's endpoints that serve `workloads`; None means all."""
    if workloads is None:
        return kind
    return frozenset(endpoint for endpoint in kind if WORKLOADS[endpoint] in workloads)


@cache
def workloads_of(endpoints: frozenset[Endpoint]) -> tuple[Workload, ...]:
    """Return the workloads of `endpoints`, sorted."""
    return tuple(sorted({WORKLOADS[endpoint] for endpoint in endpoints}))


def passage_for(request: TaskRequest) -> Passage | None:
    """Return the OpenAI request of an embedding or rerank task; None for a completion.

    Raises ApiError if a required field is missing.
    """
    if request.workload == "completion":
        _require(request.prompt is not None, "prompt", "is missing and required for a completion")
        return None
    size = len(request.prompt or "") + sum(map(len, request.inputs))
    if request.workload == "embedding":
        texts: list[JsonValue] = [*request.inputs] or ([request.prompt] if request.prompt else [])
        _require(bool(texts), "inputs", "are missing and required for an embedding")
        return Passage("embeddings", {"input": texts}, size)
    _require(request.prompt is not None, "prompt", "is missing; set it to the query that ranks the inputs")
    _require(bool(request.inputs), "inputs", "are missing; set them to the documents to rank")
    return Passage("rerank", {"query": request.prompt, "documents": [*request.inputs]}, size)


def _require(given: bool, field: str, problem: str) -> None:
    if not given:
        raise ApiError(400, invalid([(field, problem)]))
