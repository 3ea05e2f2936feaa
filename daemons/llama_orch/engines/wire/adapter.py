"""What the relay needs to know of an engine: how a task is asked for, and what the answer means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_orch.contracts.errors import Reason
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Endpoint, Passage


@dataclass(frozen=True)
class Piece:
    """A piece of the answer's text; empty where the engine only shows that it lives."""

    text: str


@dataclass(frozen=True)
class Chunk:
    """One chunk of an OpenAI stream, as it is passed on; `tokens` of it are the answer's. `usage` marks the chunk
    without choices that tells the counts, which only clients that asked for it get."""

    raw: str
    tokens: int = 0
    usage: bool = False


@dataclass(frozen=True)
class Result:
    """The whole of an answer that does not come as a stream (embeddings, rerank): OpenAI's JSON, in one line."""

    raw: str


@dataclass(frozen=True)
class Finished:
    """The answer is complete. The counts are the engine's own, None where it does not tell; `cached` tokens of the
    prompt were found in its KV cache."""

    tokens_in: int | None
    tokens_out: int | None
    cached: int | None = None


@dataclass(frozen=True)
class Refused:
    """The engine answers with an error. `client_fault`: the request was wrong, the engine is well; `reason` says in
    which way, where that is known. `busy`: it is well but has no room now. `gone`: a proxy in front of it says that it
    cannot be reached."""

    message: str
    client_fault: bool
    busy: bool = False
    reason: Reason | None = None
    gone: bool = False


@dataclass(frozen=True)
class Complaint:
    """Words by which a kind of engine rejects a request with a server error; `reason` as clients are told."""

    words: re.Pattern[str]
    reason: Reason | None = None


Complaints = Sequence[Complaint]

Said = Piece | Chunk | Result | Finished | Refused


class Dialogue(Protocol):
    """One request to an engine and the reading of its answer; used once."""

    path: str
    body: bytes
    streamed: bool
    """Whether the answer is server-sent events; otherwise it is one JSON document."""

    def event(self, data: str) -> Sequence[Said]:
        """What one event of the stream means. Raises ValueError when it is not understood."""
        ...

    def whole(self, body: bytes) -> Sequence[Said]:
        """What a document means; ends with Finished. Raises ValueError when it is not understood."""
        ...

    def closed(self) -> Sequence[Said]:
        """What it means that the stream ends here: ends with Finished, or nothing where the answer is not complete."""
        ...


class EngineAdapter(Protocol):
    """One kind of engine. Stateless."""

    name: str
    endpoints: frozenset[Endpoint]
    """What engines of this kind can be asked for."""
    complaints: Complaints
    """What engines of this kind answer with a server error though the request is at fault."""

    def dialogue(self, request: TaskRequest, passage: Passage | None, model: str | None) -> Dialogue:
        """How a task is put to the engine; `model` is the name under which it serves the task's model, if known.

        `passage` is None for the endpoint `completion`, where `request` says everything. Raises ValueError, with words
        for the client, for what cannot be put to the engine.
        """
        ...

    def refusal(self, status: int, body: bytes) -> Refused:
        """What an answer other than 200 means."""
        ...
