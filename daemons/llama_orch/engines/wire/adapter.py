"""The interface of wire formats: how a task is put to an engine, and what its answer means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_orch.contracts.errors import Reason
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Endpoint, Passage


@dataclass(frozen=True)
class TextPiece:
    """A piece of the answer's text; empty if the engine only shows that it is alive."""

    text: str


@dataclass(frozen=True)
class StreamChunk:
    """One chunk of an OpenAI stream, passed on as it is; it contains `tokens` tokens of the answer.

    `usage`: a chunk without choices that reports the counts. Only clients that asked for it get it.
    """

    raw: str
    tokens: int = 0
    usage: bool = False


@dataclass(frozen=True)
class WholeAnswer:
    """An answer that is not streamed (embeddings, rerank): OpenAI's JSON in one line."""

    raw: str


@dataclass(frozen=True)
class Finished:
    """The answer is complete. The counts are the engine's own, None if it does not report them.

    `cached` tokens of the prompt were found in its KV cache.
    """

    tokens_in: int | None
    tokens_out: int | None
    cached: int | None = None


@dataclass(frozen=True)
class EngineRefusal:
    """The engine answers with an error.

    `client_fault`: the request was wrong and the engine is healthy; `reason` says in which way, if known. `busy`: it is
    healthy but has no capacity now. `gone`: a proxy in front of it reports that it cannot be reached.
    """

    message: str
    client_fault: bool
    busy: bool = False
    reason: Reason | None = None
    gone: bool = False


@dataclass(frozen=True)
class ErrorPattern:
    """A message with which a kind of engine rejects a bad request as a server error; `reason` is for the client."""

    words: re.Pattern[str]
    reason: Reason | None = None


ErrorPatterns = Sequence[ErrorPattern]

AnswerPart = TextPiece | StreamChunk | WholeAnswer | Finished | EngineRefusal


class EngineCall(Protocol):
    """One request to an engine and the parser of its answer; used once."""

    path: str
    body: bytes
    streamed: bool
    """Whether the answer is server-sent events; otherwise it is one JSON document."""

    def event(self, data: str) -> Sequence[AnswerPart]:
        """Parse one event of the stream. Raises ValueError if it is malformed."""
        ...

    def whole(self, body: bytes) -> Sequence[AnswerPart]:
        """Parse a document; ends with Finished. Raises ValueError if it is malformed."""
        ...

    def closed(self) -> Sequence[AnswerPart]:
        """Handle the end of the stream: ends with Finished, or returns nothing if the answer is incomplete."""
        ...


class EngineAdapter(Protocol):
    """The wire format of one kind of engine. Stateless."""

    endpoints: frozenset[Endpoint]
    """The endpoints that engines of this kind have."""
    error_patterns: ErrorPatterns
    """Messages of server errors that are the request's fault."""

    def call(self, request: TaskRequest, passage: Passage | None, model: str | None) -> EngineCall:
        """Build the request; `model` is the name under which the engine serves the task's model, if known.

        `passage` is None for the endpoint `completion`, where `request` says everything. Raises ValueError, with a
        message for the client, if the engine cannot be asked for it.
        """
        ...

    def refusal(self, status: int, body: bytes) -> EngineRefusal:
        """Parse an answer with another status than 200."""
        ...
