"""Translation of embeddings between Ollama's API and OpenAI's. Pure."""

import math

from pydantic import BaseModel, JsonValue

from queen_rbee.api.ollama.request import EmbeddingsRequest, EmbedRequest


class _Entry(BaseModel):
    embedding: list[float]
    index: int = 0


class _Document(BaseModel):
    data: list[_Entry]


def embed_body(request: EmbedRequest) -> dict[str, JsonValue]:
    return {"model": request.model, "input": list(request.input), "encoding_format": "float"}


def embedding_body(request: EmbeddingsRequest) -> dict[str, JsonValue]:
    return {"model": request.model, "input": [request.prompt], "encoding_format": "float"}


def vectors_of(document: str, dimensions: int | None) -> list[list[float]]:
    """Return the embeddings of an engine's document in the order of the texts, each cut to `dimensions` numbers.

    Raises ValueError for anything else.
    """
    entries = sorted(_Document.model_validate_json(document).data, key=lambda entry: entry.index)
    return [cut(entry.embedding, dimensions) for entry in entries]


def cut(vector: list[float], dimensions: int | None) -> list[float]:
    """Return the first `dimensions` numbers with the length 1, as Ollama does; all if it has no more than that."""
    if not dimensions or len(vector) <= dimensions:
        return vector
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    return [number / length for number in kept] if length else kept
