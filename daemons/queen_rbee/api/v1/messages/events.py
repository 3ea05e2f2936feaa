"""The events of a message's stream, as in https://docs.claude.com/en/docs/build-with-claude/streaming."""

import json
from dataclasses import dataclass

from pydantic import JsonValue

from queen_rbee.api.v1.messages.chunks import Usage

Json = dict[str, JsonValue]


@dataclass(frozen=True)
class Event:
    """One event of the stream; its `type` is also its name."""

    data: Json

    @property
    def frame(self) -> bytes:
        """The event as it is sent."""
        text = json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
        return f"event: {self.data['type']}\ndata: {text}\n\n".encode("utf-8", "replace")


STOP = Event({"type": "message_stop"})


def message_start(message_id: str, model: str, usage: Usage) -> Event:
    """The head of a message that has nothing in it yet."""
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
    return Event({"type": "message_start", "message": message})


def block_start(index: int, block: Json) -> Event:
    """Block number `index` begins; `block` is as it is while empty."""
    return Event({"type": "content_block_start", "index": index, "content_block": block})


def block_delta(index: int, delta: Json) -> Event:
    """More of block number `index`."""
    return Event({"type": "content_block_delta", "index": index, "delta": delta})


def block_stop(index: int) -> Event:
    """Block number `index` is complete."""
    return Event({"type": "content_block_stop", "index": index})


def message_delta(reason: str, sequence: str | None, usage: Usage) -> Event:
    """Why the message ends, and what it took."""
    delta: Json = {"stop_reason": reason, "stop_sequence": sequence}
    return Event({"type": "message_delta", "delta": delta, "usage": counts(usage)})


def counts(usage: Usage) -> Json:
    """Anthropic's `usage`: `input_tokens` are those that were not in the cache; what is written there, nobody tells."""
    cached = usage.cached or 0
    return {
        "input_tokens": max(0, usage.prompt_tokens - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    }
