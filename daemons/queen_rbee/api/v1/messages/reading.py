"""From the chunks of an OpenAI chat to the events of an Anthropic message, as they come.

Anthropic's content blocks follow one another, each open until the next begins; a chunk may have text, thoughts and
pieces of tool calls at will.
"""

from typing import Literal

from pydantic import ValidationError

from queen_rbee.api.v1.messages.calls import ToolCall, ToolCalls
from queen_rbee.api.v1.messages.chunks import Chunk, Delta, Usage
from queen_rbee.api.v1.messages.ending import Ending, Wanted, stop_of
from queen_rbee.api.v1.messages.events import (
    STOP,
    Event,
    Json,
    block_delta,
    block_start,
    block_stop,
    message_delta,
    message_start,
)

Kind = Literal["text", "thinking", "tool_use"]


class Reading:
    """The reading of one answer: `chunk` for each chunk, then `end`; `begin` first where the head is wanted at once.

    `understood` is False once a chunk was none: the message is not to be trusted.
    """

    def __init__(self, answer_id: str, wanted: Wanted) -> None:
        self.understood = True
        self._id = answer_id
        self._wanted = wanted
        self._begun = False
        self._index = 0
        self._open: Kind | None = None
        self._calls = ToolCalls(answer_id)
        self._ending = Ending()
        self._usage: Usage | None = None
        self._read: Usage | None = None

    def begin(self) -> list[Event]:
        """The message's head, once."""
        if self._begun:
            return []
        self._begun = True
        return [message_start(f"msg_{self._id}", self._wanted.model, self._usage or self._read or Usage())]

    def chunk(self, chunk: str | bytes) -> list[Event]:
        """The events that a chunk makes; none, and no longer `understood`, where it is no chunk."""
        try:
            read = Chunk.model_validate_json(chunk)
        except ValidationError:
            self.understood = False
            return []
        self._usage = read.usage or self._usage
        self._read = read.prompt_progress.usage if read.prompt_progress else self._read
        found = self.begin()
        for choice in read.choices or ():
            self._ending = self._ending.after(choice)
            found += self._delta(choice.delta) if choice.delta else []
        return found

    def end(self, tokens_in: int, tokens_out: int) -> list[Event]:
        """The rest of the message. The counts hold where the engine has sent no `usage`."""
        usage = self._usage or Usage(prompt_tokens=tokens_in, completion_tokens=tokens_out)
        reason, sequence = stop_of(self._ending, self._wanted, usage.completion_tokens, called=bool(self._calls))
        rest = [*self.begin(), *self._close_calls(), *self._close()]
        return [*rest, message_delta(reason, sequence, usage), STOP]

    def _delta(self, delta: Delta) -> list[Event]:
        found = self._text("thinking", delta.thoughts) if self._wanted.thoughts else []
        found += self._text("text", delta.content)
        found += self._text("text", delta.refusal)
        for piece in delta.tool_calls or ():
            self.understood = self._calls.add(piece) and self.understood
            found += self._whole(self._calls.take_complete())
            found += self._show(self._calls.current) if self._calls.current else []
        return found

    def _text(self, kind: Literal["text", "thinking"], text: str | None) -> list[Event]:
        if not text:
            return []
        found: list[Event] = []
        if self._open != kind:
            blank: Json = {"type": "text", "text": ""}
            if kind == "thinking":
                blank = {"type": "thinking", "thinking": "", "signature": ""}
            found += [*self._close_calls(), *self._begin(kind, blank)]
        return [*found, block_delta(self._index, {"type": f"{kind}_delta", kind: text})]

    def _close_calls(self) -> list[Event]:
        return self._whole(self._calls.take_all())

    def _whole(self, calls: list[ToolCall]) -> list[Event]:
        return [event for call in calls for event in (*self._show(call), *self._close())]

    def _show(self, call: ToolCall) -> list[Event]:
        found: list[Event] = []
        if self._open != "tool_use":
            found += self._begin("tool_use", {"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
        if news := call.news():
            found.append(block_delta(self._index, {"type": "input_json_delta", "partial_json": news}))
        return found

    def _begin(self, kind: Kind, blank: Json) -> list[Event]:
        closing, self._open = self._close(), kind
        return [*closing, block_start(self._index, blank)]

    def _close(self) -> list[Event]:
        if self._open is None:
            return []
        # who passes thoughts back sends their signature along; there is none to check here
        signed = [block_delta(self._index, {"type": "signature_delta", "signature": ""})]
        found = [*(signed if self._open == "thinking" else []), block_stop(self._index)]
        self._open = None
        self._index += 1
        return found
