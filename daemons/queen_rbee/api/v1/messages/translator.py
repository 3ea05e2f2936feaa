"""Translation of OpenAI chat chunks into the events of an Anthropic message, as the chunks arrive.

Anthropic's content blocks follow one another, each open until the next begins. A chunk may mix text, thoughts and
fragments of tool calls.
"""

from typing import Literal

from pydantic import ValidationError

from queen_rbee.api.v1.chat.chunks import ChatChunk, ChatUsage, ChunkDelta
from queen_rbee.api.v1.chat.tool_calls import ToolCall, ToolCalls
from queen_rbee.api.v1.chat.turns import Json
from queen_rbee.api.v1.messages.events import (
    STOP,
    MessageEvent,
    block_delta,
    block_start,
    block_stop,
    message_delta,
    message_start,
)
from queen_rbee.api.v1.messages.stop_reasons import AnswerOptions, Ending, stop_reason

BlockKind = Literal["text", "thinking", "tool_use"]


class ChunkTranslator:
    """Translates one answer: call `chunk` for each chunk, then `end`. Call `begin` first to get the head early.

    `valid` turns False with the first chunk that is not an OpenAI chat chunk; the message must then be discarded.
    """

    def __init__(self, answer_id: str, options: AnswerOptions) -> None:
        self.valid = True
        self._id = answer_id
        self._options = options
        self._begun = False
        self._index = 0
        self._open: BlockKind | None = None
        self._calls = ToolCalls(f"toolu_{answer_id}")
        self._ending = Ending()
        self._usage: ChatUsage | None = None
        self._prompt_usage: ChatUsage | None = None

    def begin(self) -> list[MessageEvent]:
        """Return the message's head on the first call, nothing on later ones."""
        if self._begun:
            return []
        self._begun = True
        usage = self._usage or self._prompt_usage or ChatUsage()
        return [message_start(f"msg_{self._id}", self._options.model, usage)]

    def chunk(self, chunk: str | bytes) -> list[MessageEvent]:
        """Translate a chunk; of an invalid one make no events."""
        try:
            parsed = ChatChunk.model_validate_json(chunk)
        except ValidationError:
            self.valid = False
            return []
        self._usage = parsed.usage or self._usage
        self._prompt_usage = parsed.prompt_progress.usage if parsed.prompt_progress else self._prompt_usage
        events = self.begin()
        for choice in parsed.choices or ():
            self._ending = self._ending.after(choice)
            events += self._delta(choice.delta) if choice.delta else []
        return events

    def end(self, tokens_in: int, tokens_out: int) -> list[MessageEvent]:
        """Return the rest of the message. The counts apply if the engine has sent no `usage`."""
        usage = self._usage or ChatUsage(prompt_tokens=tokens_in, completion_tokens=tokens_out)
        reason, sequence = stop_reason(
            self._ending, self._options, usage.completion_tokens, tools_called=bool(self._calls)
        )
        rest = [*self.begin(), *self._close_calls(), *self._close()]
        return [*rest, message_delta(reason, sequence, usage), STOP]

    def _delta(self, delta: ChunkDelta) -> list[MessageEvent]:
        events = self._text("thinking", delta.thoughts) if self._options.thoughts else []
        events += self._text("text", delta.content)
        events += self._text("text", delta.refusal)
        for fragment in delta.tool_calls or ():
            self.valid = self._calls.add(fragment) and self.valid
            events += self._send_complete(self._calls.take_complete())
            events += self._send_call(self._calls.current) if self._calls.current else []
        return events

    def _text(self, kind: Literal["text", "thinking"], text: str | None) -> list[MessageEvent]:
        if not text:
            return []
        events: list[MessageEvent] = []
        if self._open != kind:
            empty: Json = {"type": "text", "text": ""}
            if kind == "thinking":
                empty = {"type": "thinking", "thinking": "", "signature": ""}
            events += [*self._close_calls(), *self._open_block(kind, empty)]
        return [*events, block_delta(self._index, {"type": f"{kind}_delta", kind: text})]

    def _close_calls(self) -> list[MessageEvent]:
        return self._send_complete(self._calls.take_all())

    def _send_complete(self, calls: list[ToolCall]) -> list[MessageEvent]:
        return [event for call in calls for event in (*self._send_call(call), *self._close())]

    def _send_call(self, call: ToolCall) -> list[MessageEvent]:
        events: list[MessageEvent] = []
        if self._open != "tool_use":
            events += self._open_block("tool_use", {"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
        if unsent := call.take_unsent():
            events.append(block_delta(self._index, {"type": "input_json_delta", "partial_json": unsent}))
        return events

    def _open_block(self, kind: BlockKind, empty: Json) -> list[MessageEvent]:
        closing, self._open = self._close(), kind
        return [*closing, block_start(self._index, empty)]

    def _close(self) -> list[MessageEvent]:
        if self._open is None:
            return []
        # clients send thoughts back together with their signature; there is none to verify here
        signature = [block_delta(self._index, {"type": "signature_delta", "signature": ""})]
        events = [*(signature if self._open == "thinking" else []), block_stop(self._index)]
        self._open = None
        self._index += 1
        return events
