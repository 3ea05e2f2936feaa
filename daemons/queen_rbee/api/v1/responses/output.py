"""The output items of a response while they are written, and the events that this makes.

Each item is open until the next begins, and so is each of its parts. The order of events is that of
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from queen_rbee.api.v1.chat.tool_calls import ToolCall
from queen_rbee.api.v1.chat.turns import Json
from queen_rbee.api.v1.responses.tools import Function

PartKind = Literal["output_text", "refusal", "reasoning_text"]
Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(frozen=True)
class PartFormat:
    """How a kind of part appears. `more` are fields of the part, `event_more` those of its text's events."""

    item: Literal["message", "reasoning"]
    event: str
    text: str = "text"
    more: Mapping[str, JsonValue] = field(default_factory=dict)
    event_more: Mapping[str, JsonValue] = field(default_factory=dict)


FORMATS: Mapping[PartKind, PartFormat] = {
    "output_text": PartFormat(
        "message", "response.output_text", more={"annotations": [], "logprobs": []}, event_more={"logprobs": []}
    ),
    "refusal": PartFormat("message", "response.refusal", "refusal"),
    "reasoning_text": PartFormat("reasoning", "response.reasoning_text"),
}


@dataclass
class OpenPart:
    """A part of the item that is being written; `place` are the fields that its events have in common."""

    kind: PartKind
    place: Json
    pieces: list[str] = field(default_factory=list)

    def to_json(self) -> Json:
        described = FORMATS[self.kind]
        return {"type": self.kind, described.text: "".join(self.pieces), **described.more}


@dataclass
class OpenItem:
    """The item that is being written: a message, reasoning, or `call`, of whose arguments `pieces` have been sent.

    `function` is what is called if it is in a namespace.
    """

    kind: Literal["message", "reasoning", "function_call"]
    id: str
    index: int
    call: ToolCall | None = None
    function: Function | None = None
    pieces: list[str] = field(default_factory=list)
    parts: list[Json] = field(default_factory=list)
    part: OpenPart | None = None

    @property
    def place(self) -> Json:
        """The fields that all events about the inside of the item have."""
        return {"item_id": self.id, "output_index": self.index}

    def to_json(self, status: Status) -> Json:
        item: Json = {"id": self.id, "type": self.kind, "status": status}
        match self.kind:
            case "message":
                return item | {"role": "assistant", "content": [*self.parts]}
            case "reasoning":
                return item | {"summary": [], "content": [*self.parts]}
            case "function_call":
                return item | self._called() | {"arguments": "".join(self.pieces)}

    def _called(self) -> Json:
        assert self.call
        if self.function is None:
            return {"call_id": self.call.id, "name": self.call.name}
        return {"call_id": self.call.id, "name": self.function.tool.name, "namespace": self.function.namespace}


class Output:
    """All output items of one answer. Each method returns the events that it makes, still without their numbers."""

    def __init__(self, answer_id: str, functions: Iterable[Function] = ()) -> None:
        """`functions` are those that were offered."""
        self._answer_id = answer_id
        self._namespaced = {function.chat_name: function for function in functions if function.namespace}
        self._open: OpenItem | None = None
        self.items: list[Json] = []
        """The closed items."""

    def write(self, kind: PartKind, text: str) -> list[Json]:
        """Add text to the part that is open; open another if its kind is another."""
        described = FORMATS[kind]
        events: list[Json] = []
        item = self._open
        if item is None or item.kind != described.item:
            item, events = self._begin(described.item, "msg" if described.item == "message" else "rs")
        if item.part is None or item.part.kind != kind:
            events += [*_end_part(item), *_begin_part(item, kind)]
        assert item.part
        item.part.pieces.append(text)
        return [*events, {"type": f"{described.event}.delta", **item.part.place, "delta": text, **described.event_more}]

    def call(self, call: ToolCall) -> list[Json]:
        """Send what is new of a call's arguments; begin the call if another or none is open."""
        item = self._open
        events: list[Json] = []
        if item is None or item.call is not call:
            item, events = self._begin("function_call", "fc", call)
        return events + _add_arguments(item, call.take_unsent())

    def close(self, status: Status = "completed") -> list[Json]:
        """Close the item that is open, if there is one."""
        item, self._open = self._open, None
        if item is None:
            return []
        events = _end_part(item)
        if item.kind == "function_call":
            # a call without arguments has an empty object, which clients can parse
            events += _add_arguments(item, "{}" if status == "completed" and not item.pieces else "")
            done = {"type": "response.function_call_arguments.done", **item.place, "arguments": "".join(item.pieces)}
            events.append(done)
        self.items.append(item.to_json(status))
        return [*events, {"type": "response.output_item.done", "output_index": item.index, "item": self.items[-1]}]

    def _begin(
        self, kind: Literal["message", "reasoning", "function_call"], prefix: str, call: ToolCall | None = None
    ) -> tuple[OpenItem, list[Json]]:
        closing, index = self.close(), len(self.items)
        function = self._namespaced.get(call.name) if call else None
        item = self._open = OpenItem(kind, f"{prefix}_{self._answer_id}_{index}", index, call, function)
        added: Json = {"type": "response.output_item.added", "output_index": index, "item": item.to_json("in_progress")}
        return item, [*closing, added]


def _begin_part(item: OpenItem, kind: PartKind) -> list[Json]:
    part = item.part = OpenPart(kind, {**item.place, "content_index": len(item.parts)})
    return [{"type": "response.content_part.added", **part.place, "part": part.to_json()}]


def _end_part(item: OpenItem) -> list[Json]:
    part, item.part = item.part, None
    if part is None:
        return []
    described, whole = FORMATS[part.kind], part.to_json()
    item.parts.append(whole)
    text: Json = {described.text: whole[described.text]}
    return [
        {"type": f"{described.event}.done", **part.place, **text, **described.event_more},
        {"type": "response.content_part.done", **part.place, "part": whole},
    ]


def _add_arguments(call: OpenItem, arguments: str) -> list[Json]:
    if not arguments:
        return []
    call.pieces.append(arguments)
    return [{"type": "response.function_call_arguments.delta", **call.place, "delta": arguments}]
