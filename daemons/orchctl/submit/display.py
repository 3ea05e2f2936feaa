"""Display of a task's events: output on standard output and the queue position on the terminal, or all as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.http.client.sse import ServerSentEvent
from orchctl.client import parse_response
from orchctl.output import StatusLine, write, write_json
from orchctl.tables import UNKNOWN, format_table, one_line, optional, queue_position


class EventData(BaseModel):
    """The data of any event: a JSON object."""

    model_config = ConfigDict(extra="allow")


class TokenData(Outbound):
    t: str


class QueueData(Outbound):
    """The data of a `started` event, or of a `metrics` event, which has a position only while the task is queued."""

    queue_position: int | None = None
    predicted_start_ms: int | None = None


class EmbeddingVector(Outbound):
    embedding: list[float]
    index: int


class EmbeddingResult(Outbound):
    """The data of the `result` event of an embedding, in OpenAI's format."""

    data: list[EmbeddingVector]


class RerankedDocument(Outbound):
    index: int
    relevance_score: float


class RerankResult(Outbound):
    """The data of the `result` event of a rerank."""

    results: list[RerankedDocument]


@dataclass
class TaskDisplay:
    """Displays the events of one task; `inputs` are the documents of a rerank."""

    as_json: bool
    inputs: Sequence[str] = ()
    line: StatusLine = field(default_factory=StatusLine)
    mid_line: bool = False
    """Whether the output so far does not end with a newline."""

    def event(self, event: ServerSentEvent) -> None:
        """Raises CommandError if the event's data is invalid."""
        if self.as_json:
            data = parse_response(EventData, event.data.encode()).model_extra or {}
            write_json({"event": event.name, **data})
        elif event.name in ("started", "metrics"):
            self._show_queue_position(parse_response(QueueData, event.data.encode()))
        elif event.name == "token":
            self._write(parse_response(TokenData, event.data.encode()).t)
        elif event.name == "result":
            self._write(f"{format_result(event.data, self.inputs)}\n")

    def connection_lost(self) -> None:
        """Show that the connection is lost, unless that would overwrite a part of the answer."""
        if not self.mid_line:
            self.line.show("connection lost, reconnecting")

    def _show_queue_position(self, data: QueueData) -> None:
        if data.queue_position is not None and (data.queue_position or data.predicted_start_ms != 0):
            self.line.show(queue_position(data.queue_position, data.predicted_start_ms))
        else:
            self.line.clear()

    def _write(self, text: str) -> None:
        self.line.clear()
        self.mid_line = not text.endswith("\n") if text else self.mid_line  # before write(), which Ctrl-C may interrupt
        write(text)

    def end(self) -> None:
        """Clear the status line and end the output's last line."""
        self.line.clear()
        if self.mid_line:
            write("\n")
            self.mid_line = False


def format_result(data: str, inputs: Sequence[str]) -> str:
    """Format vectors as one line of JSON each, reranked documents as a table, best first, other data unchanged."""
    try:
        vectors = sorted(EmbeddingResult.model_validate_json(data).data, key=lambda vector: vector.index)
        return "\n".join(json.dumps(vector.embedding) for vector in vectors)
    except ValidationError:
        pass
    try:
        ranked = sorted(RerankResult.model_validate_json(data).results, key=lambda document: -document.relevance_score)
    except ValidationError:
        return data
    rows = [(optional(doc.relevance_score), str(doc.index), _document(inputs, doc.index)) for doc in ranked]
    return format_table([("SCORE", "INDEX", "DOCUMENT"), *rows])


def _document(inputs: Sequence[str], index: int) -> str:
    return one_line(inputs[index]) if 0 <= index < len(inputs) else UNKNOWN
