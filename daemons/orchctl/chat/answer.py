"""One streamed answer of POST /v1/chat/completions. Leaving it closes the connection, which cancels the request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue, ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.http.client.client import UpstreamError
from llama_orch.http.client.sse import MalformedStream, read_events
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, encode_json, parse_response
from orchctl.error_responses import V1ErrorBody, v1_stream_error
from orchctl.errors import CommandError
from orchctl.submit.event_stream import IdleLimited

PATH = "/v1/chat/completions"
DONE = "[DONE]"


class ChunkDelta(Outbound):
    """What a chunk adds; `reasoning_content` is what a reasoning model emits before its answer."""

    content: str | None = None
    reasoning_content: str | None = None


class ChunkChoice(Outbound):
    delta: ChunkDelta = ChunkDelta()
    finish_reason: str | None = None


class AnswerChunk(Outbound):
    """One chunk of the stream; the last one has the usage and no choices."""

    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[ChunkChoice] = []
    usage: dict[str, JsonValue] | None = None

    @property
    def has_reasoning(self) -> bool:
        return any(choice.delta.reasoning_content for choice in self.choices)


@dataclass
class ChatAnswer:
    """The part of an answer received so far."""

    parts: list[str] = field(default_factory=list)
    head: AnswerChunk = field(default_factory=AnswerChunk)
    finish_reason: str | None = None
    usage: dict[str, JsonValue] | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def add(self, chunk: AnswerChunk) -> str:
        """Add a chunk and return its text."""
        self.head = self.head if self.head.id else chunk
        self.usage = chunk.usage or self.usage
        choice = chunk.choices[0] if chunk.choices else ChunkChoice()
        self.finish_reason = choice.finish_reason or self.finish_reason
        self.parts.append(choice.delta.content or "")
        return self.parts[-1]

    def document(self) -> dict[str, JsonValue]:
        """Return the answer in OpenAI's format for an answer that is not streamed."""
        head: dict[str, JsonValue] = {"id": self.head.id, "object": "chat.completion", "created": self.head.created}
        message: dict[str, JsonValue] = {"role": "assistant", "content": self.text}
        choice: dict[str, JsonValue] = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {**head, "model": self.head.model, "choices": [choice], "usage": self.usage}


async def stream_answer(
    queen: QueenClient, body: Mapping[str, object], headers: Mapping[str, str], handle: Callable[[AnswerChunk], None]
) -> None:
    """Send the request `body` and pass each chunk to `handle`. Raises CommandError, also if the answer breaks off."""
    request = encode_json({**body, "stream": True, "stream_options": {"include_usage": True}})
    started = False
    try:
        async with queen.request("POST", PATH, request, headers) as response:
            started = True
            async for event in read_events(IdleLimited(response.chunks())):
                if event.data == DONE:
                    return
                handle(_parse_chunk(event.data))
        raise UpstreamError("the stream ended before the answer did")
    except UpstreamError as error:
        raise (_broken_off(error) if started else queen.unreachable(error)) from error
    except MalformedStream as error:
        raise _broken_off(error) from error


def _parse_chunk(data: str) -> AnswerChunk:
    """Raises CommandError if the event is an error."""
    try:
        error = V1ErrorBody.model_validate_json(data).error
    except ValidationError:
        return parse_response(AnswerChunk, data.encode())
    raise v1_stream_error(error, data)


def _broken_off(error: Exception) -> CommandError:
    return CommandError(f"the answer broke off: {error}", "The request can be retried.", ExitStatus.UNAVAILABLE)
