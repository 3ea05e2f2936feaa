"""From the chunks of an engine's answer to the pieces of Ollama's: text, thoughts and whole tool calls. Pure."""

import json
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from queen_rbee.api.v1.chat.chunks import ChatChunk, ChatUsage, ChunkChoice
from queen_rbee.api.v1.chat.fields import Lenient
from queen_rbee.api.v1.chat.tool_calls import ToolCall, ToolCalls

INVALID_ARGUMENTS = "INVALID_JSON"
"""Key that holds a call's arguments that are not a JSON object: the model wrote them so, or was cut off."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Piece:
    """A part of an answer."""

    text: str = ""
    thoughts: str = ""
    calls: tuple[JsonValue, ...] = ()
    logprobs: tuple[JsonValue, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.thoughts or self.calls or self.logprobs)


def joined(pieces: list[Piece]) -> Piece:
    """Return the whole answer."""
    return Piece(
        "".join(piece.text for piece in pieces),
        "".join(piece.thoughts for piece in pieces),
        tuple(call for piece in pieces for call in piece.calls),
        tuple(entry for piece in pieces for entry in piece.logprobs),
    )


class EngineTimings(Lenient):
    """llama-server's own times in milliseconds."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


@dataclass
class AnswerEnd:
    """What the chunks so far say about the end. `valid` is False once a chunk was unreadable."""

    valid: bool = True
    finish_reason: str | None = None
    timings: EngineTimings | None = None

    @property
    def done_reason(self) -> str:
        """Ollama's reason: `length`, or `stop`, also after tool calls."""
        return "length" if self.finish_reason == "length" else "stop"


class Translator(Protocol):
    """Translates one answer: `add` for each chunk, then `end`."""

    ending: AnswerEnd

    def add(self, data: str) -> Piece: ...

    def end(self) -> Piece:
        """Return what was held back."""
        ...


class TokenLogprob(Lenient):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class ContentLogprob(TokenLogprob):
    top_logprobs: tuple[TokenLogprob, ...] | None = None


class Logprobs(Lenient):
    content: tuple[ContentLogprob, ...] | None = None


class Choice(ChunkChoice):
    logprobs: Logprobs | None = None


class Chunk(ChatChunk):
    choices: tuple[Choice, ...] | None = None
    timings: EngineTimings | None = None


class ChatTranslator:
    """The Translator of chats. A call is sent when it is complete, since Ollama's calls are not in pieces."""

    def __init__(self, answer_id: str, *, thoughts: bool = True) -> None:
        """Without `thoughts` reasoning is dropped: some models think even if told not to."""
        self.ending = AnswerEnd()
        self._thoughts = thoughts
        self._calls = ToolCalls(answer_id)
        self._taken = 0

    def add(self, data: str) -> Piece:
        chunk = _parsed(Chunk, data, self.ending)
        if chunk is None:
            return Piece()
        self.ending.timings = chunk.timings or self.ending.timings
        return joined([self._piece(choice) for choice in chunk.choices or ()])

    def end(self) -> Piece:
        return Piece(calls=self._take(self._calls.take_all()))

    def _piece(self, choice: Choice) -> Piece:
        self.ending.finish_reason = choice.finish_reason or self.ending.finish_reason
        delta, calls = choice.delta, list[ToolCall]()
        for fragment in (delta and delta.tool_calls) or ():
            self.ending.valid = self._calls.add(fragment) and self.ending.valid
            calls += self._calls.take_complete()
        if choice.finish_reason:
            calls += self._calls.take_all()
        entries = choice.logprobs.content if choice.logprobs else None
        return Piece(
            ((delta and delta.content) or "") + ((delta and delta.refusal) or ""),
            ((delta and delta.thoughts) or "") if self._thoughts else "",
            self._take(calls),
            tuple(entry.model_dump(mode="json", exclude_none=True) for entry in entries or ()),
        )

    def _take(self, calls: list[ToolCall]) -> tuple[JsonValue, ...]:
        first = self._taken
        self._taken += len(calls)
        return tuple(_call(call, first + number) for number, call in enumerate(calls))


def _call(call: ToolCall, index: int) -> JsonValue:
    try:
        arguments: JsonValue = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {INVALID_ARGUMENTS: call.arguments}
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}


class TextChoice(Lenient):
    text: str | None = None
    finish_reason: str | None = None


class TextChunk(Lenient):
    choices: tuple[TextChoice, ...] | None = None
    usage: ChatUsage | None = None
    timings: EngineTimings | None = None


class TextTranslator:
    """The Translator of text completions."""

    def __init__(self) -> None:
        self.ending = AnswerEnd()

    def add(self, data: str) -> Piece:
        chunk = _parsed(TextChunk, data, self.ending)
        if chunk is None:
            return Piece()
        self.ending.timings = chunk.timings or self.ending.timings
        choices = chunk.choices or ()
        for choice in choices:
            self.ending.finish_reason = choice.finish_reason or self.ending.finish_reason
        return Piece("".join(choice.text or "" for choice in choices))

    def end(self) -> Piece:
        return Piece()


def _parsed(model: type[Model], data: str, ending: AnswerEnd) -> Model | None:
    try:
        return model.model_validate_json(data)
    except ValidationError:
        ending.valid = False
        return None
