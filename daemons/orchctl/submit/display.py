"""How what a task says is shown: tokens and results on standard output, where it stands while it waits; or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.http.client.sse import ServerSentEvent
from orchctl.client import understood
from orchctl.output import StatusLine, emit, emit_json
from orchctl.tables import cell, one_line, place, table


class Anything(BaseModel):
    """The data of any event: a JSON object."""

    model_config = ConfigDict(extra="allow")


class Token(Outbound):
    """The data of a `token` event."""

    t: str


class Waiting(Outbound):
    """The data of a `started` event, and of a `metrics` event of a task that waits; others have no position."""

    queue_position: int | None = None
    predicted_start_ms: int | None = None


class Vector(Outbound):
    """An embedding of a `result` event."""

    embedding: list[float]
    index: int


class Ranked(Outbound):
    """A document of a `result` event, as a rerank has placed it."""

    index: int
    relevance_score: float


class Vectors(Outbound):
    """The data of the `result` event of an embedding, in OpenAI's shape."""

    data: list[Vector]


class Ranking(Outbound):
    """The data of the `result` event of a rerank."""

    results: list[Ranked]


@dataclass
class Display:
    """Shows the events of one task; `inputs` are the documents of a rerank."""

    as_json: bool
    inputs: Sequence[str] = ()
    line: StatusLine = field(default_factory=StatusLine)
    open: bool = False
    """Whether the cursor stands behind text of the answer."""

    def event(self, event: ServerSentEvent) -> None:
        """Show one event of the stream. Raises CommandError where it is not understood."""
        if self.as_json:
            data = understood(Anything, event.data.encode()).model_extra or {}
            emit_json({"event": event.name, **data})
        elif event.name in ("started", "metrics"):
            self._waiting(understood(Waiting, event.data.encode()))
        elif event.name == "token":
            self._text(understood(Token, event.data.encode()).t)
        elif event.name == "result":
            self._text(f"{result_text(event.data, self.inputs)}\n")

    def lost(self) -> None:
        """Say that the connection is lost and sought again; in the midst of an answer there is no place to say it."""
        if not self.open:
            self.line.show("the connection is lost; trying again")

    def _waiting(self, waiting: Waiting) -> None:
        if waiting.queue_position is not None and (waiting.queue_position or waiting.predicted_start_ms != 0):
            self.line.show(place(waiting.queue_position, waiting.predicted_start_ms))
        else:
            self.line.clear()

    def _text(self, text: str) -> None:
        self.line.clear()
        self.open = not text.endswith("\n") if text else self.open  # before a Ctrl-C can come between
        emit(text)

    def end(self) -> None:
        """Leave the terminal on a new line."""
        self.line.clear()
        if self.open:
            emit("\n")
            self.open = False


def result_text(data: str, inputs: Sequence[str]) -> str:
    """A vector a line, as JSON; or the documents of a rerank, the best first; or what else it is, as it is."""
    try:
        vectors = sorted(Vectors.model_validate_json(data).data, key=lambda vector: vector.index)
        return "\n".join(json.dumps(vector.embedding) for vector in vectors)
    except ValidationError:
        pass
    try:
        ranked = sorted(Ranking.model_validate_json(data).results, key=lambda found: -found.relevance_score)
    except ValidationError:
        return data
    rows = [(cell(found.relevance_score), str(found.index), _document(inputs, found.index)) for found in ranked]
    return table([("SCORE", "INDEX", "DOCUMENT"), *rows])


def _document(inputs: Sequence[str], index: int) -> str:
    return one_line(inputs[index]) if 0 <= index < len(inputs) else "-"
