"""One answer of POST /v1/chat/completions, as it streams in; leaving it closes the connection, which cancels it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue, ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.http.client.client import UpstreamError
from llama_orch.http.client.sse import MalformedStream, read_events
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, understood
from orchctl.encoding import as_json
from orchctl.errors import CommandError, WrappedV1, failed
from orchctl.submit.event_stream import Timely

PATH = "/v1/chat/completions"
DONE = "[DONE]"


class ChunkDelta(Outbound):
    """What a chunk adds; `reasoning_content` is what a model thinks before it answers."""

    content: str | None = None
    reasoning_content: str | None = None


class ChunkChoice(Outbound):
    """The one answer that is asked for."""

    delta: ChunkDelta = ChunkDelta()
    finish_reason: str | None = None


class AnswerChunk(Outbound):
    """One chunk of the stream; the last one has the counts and no choices."""

    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[ChunkChoice] = []
    usage: dict[str, JsonValue] | None = None

    @property
    def thinks(self) -> bool:
        """Whether it brings what the model thinks."""
        return any(choice.delta.reasoning_content for choice in self.choices)


@dataclass
class ChatAnswer:
    """What has come of an answer so far, which is all that is left of it when it is interrupted."""

    parts: list[str] = field(default_factory=list)
    head: AnswerChunk = field(default_factory=AnswerChunk)
    finish_reason: str | None = None
    usage: dict[str, JsonValue] | None = None

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(self.parts)

    def take(self, chunk: AnswerChunk) -> str:
        """Add a chunk: the text that it brings."""
        self.head = self.head if self.head.id else chunk
        self.usage = chunk.usage or self.usage
        choice = chunk.choices[0] if chunk.choices else ChunkChoice()
        self.finish_reason = choice.finish_reason or self.finish_reason
        self.parts.append(choice.delta.content or "")
        return self.parts[-1]

    def document(self) -> dict[str, JsonValue]:
        """The answer as OpenAI writes one that was not streamed."""
        head: dict[str, JsonValue] = {"id": self.head.id, "object": "chat.completion", "created": self.head.created}
        message: dict[str, JsonValue] = {"role": "assistant", "content": self.text}
        choice: dict[str, JsonValue] = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {**head, "model": self.head.model, "choices": [choice], "usage": self.usage}


async def stream(
    queen: QueenClient, body: Mapping[str, object], headers: Mapping[str, str], take: Callable[[AnswerChunk], None]
) -> None:
    """Ask `body` and give each chunk to `take`. Raises CommandError, also where the answer breaks off."""
    asked = as_json({**body, "stream": True, "stream_options": {"include_usage": True}})
    begun = False
    try:
        async with queen.ask("POST", PATH, asked, headers) as response:
            begun = True
            async for event in read_events(Timely(response.chunks())):
                if event.data == DONE:
                    return
                take(_chunk(event.data))
        raise UpstreamError("the stream ended before the answer did")
    except UpstreamError as error:
        raise (_broken(error) if begun else queen.unreachable(error)) from error
    except MalformedStream as error:
        raise _broken(error) from error


def _chunk(data: str) -> AnswerChunk:
    """Raises CommandError where it is an error instead."""
    try:
        error = WrappedV1.model_validate_json(data).error
    except ValidationError:
        return understood(AnswerChunk, data.encode())
    raise failed(error, data)


def _broken(error: Exception) -> CommandError:
    return CommandError(f"the answer broke off: {error}", "It may be asked again.", ExitStatus.UNAVAILABLE)
