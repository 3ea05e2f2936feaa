"""What a /v2 task is, as engines are asked for it: a prompt to complete, texts to embed, documents to rank."""

from pydantic import JsonValue

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.server.bodies import invalid
from queen_rbee.engines.passage import Passage


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
