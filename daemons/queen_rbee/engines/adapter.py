"""What the relay needs to know of an engine: how a task is asked for, and what the stream's events mean."""

from dataclasses import dataclass
from typing import Protocol

from llama_orch.contracts.tasks import TaskRequest


@dataclass(frozen=True)
class Ask:
    """One HTTP request to the engine; the answer is always asked for as a stream."""

    path: str
    body: bytes


@dataclass(frozen=True)
class Piece:
    """A piece of the answer's text; empty where the engine only shows that it lives."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The answer is complete; the counts are the engine's own."""

    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Refused:
    """The engine answers with an error. `client_fault`: the request was wrong, the engine is well."""

    message: str
    client_fault: bool


class EngineAdapter(Protocol):
    """One kind of engine. Stateless."""

    name: str

    def ask(self, request: TaskRequest) -> Ask:
        """How `request` is put to the engine."""
        ...

    def event(self, data: str) -> Piece | Finished | Refused:
        """What one event of the stream means. Raises ValueError when it is not understood."""
        ...

    def refusal(self, status: int, body: bytes) -> Refused:
        """What an answer other than 200 means."""
        ...
