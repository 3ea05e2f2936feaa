"""The events of a message stream, as in https://docs.claude.com/en/docs/build-with-claude/streaming."""

from dataclasses import dataclass

from queen_rbee.api.v1.chat.chunks import ChatUsage
from queen_rbee.api.v1.chat.frames import event_frame
from queen_rbee.api.v1.chat.turns import Json


@dataclass(frozen=True)
class MessageEvent:
    """One event. Its `type` is also its name."""

    data: Json

    @property
    def frame(self) -> bytes:
        """The event in server-sent events format."""
        return event_frame(self.data)


STOP = MessageEvent({"type": "message_stop"})


def message_start(message_id: str, model: str, usage: ChatUsage) -> MessageEvent:
    message: Json = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts(usage),
    }
    return MessageEvent({"type": "message_start", "message": message})


def block_start(index: int, block: Json) -> MessageEvent:
    """Begin block number `index`; `block` is its empty form."""
    return MessageEvent({"type": "content_block_start", "index": index, "content_block": block})


def block_delta(index: int, delta: Json) -> MessageEvent:
    return MessageEvent({"type": "content_block_delta", "index": index, "delta": delta})


def block_stop(index: int) -> MessageEvent:
    return MessageEvent({"type": "content_block_stop", "index": index})


def message_delta(reason: str, sequence: str | None, usage: ChatUsage) -> MessageEvent:
    """End the message: why it stops, and its token counts."""
    delta: Json = {"stop_reason": reason, "stop_sequence": sequence}
    return MessageEvent({"type": "message_delta", "delta": delta, "usage": counts(usage)})


def counts(usage: ChatUsage) -> Json:
    """Return Anthropic's `usage`. `input_tokens` excludes cached tokens; no engine reports cache writes."""
    cached = usage.cached or 0
    return {
        "input_tokens": max(0, usage.prompt_tokens - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    }
