"""A request of a /v1 client on its way to an engine: OpenAI's endpoints, their bodies passed on as they came."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

Endpoint = Literal["completion", "chat", "completions", "embeddings", "rerank"]
"""What a task is put to. `completion` is a /v2 prompt in the engine's own way, the others are OpenAI's endpoints."""


@dataclass(frozen=True, eq=False)
class Passage:
    """What one OpenAI endpoint is asked. What `body` says of `stream` is not passed on: chat and completions are always
    asked for as a stream, and so that their tokens are counted; embeddings and rerank never are."""

    endpoint: Endpoint
    body: Mapping[str, JsonValue]
    size: int
    """Bytes of the body as it came: the time limit of the first token grows with it."""
    mark: bytes | None = None
    """A digest of the body as it came, by which a client is known that sends it again."""
