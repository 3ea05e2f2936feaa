"""The tool calls of an answer, put in order: one after the other, each complete."""

import json
from dataclasses import dataclass

from queen_rbee.api.v1.chat.chunks import ToolCallFragment


@dataclass
class ToolCall:
    """A call received so far. The first `sent` characters of its arguments have been sent to the client."""

    id: str
    name: str = ""
    arguments: str = ""
    sent: int = 0

    @property
    def complete(self) -> bool:
        """Whether the arguments are a complete JSON object."""
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False

    def take_unsent(self) -> str:
        """Return the arguments that have not been sent, and count them as sent."""
        unsent, self.sent = self.arguments[self.sent :], len(self.arguments)
        return unsent


class ToolCalls:
    """All calls of an answer. OpenAI's fragments may come in any order; parts of other APIs follow one another.

    The first incomplete call is streamed as its fragments arrive; fragments of later calls are held back. A call to
    which the engine gives no id has `prefix` and its number.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._known: dict[int, ToolCall] = {}
        self._pending: list[ToolCall] = []

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, fragment: ToolCallFragment) -> bool:
        """Add a fragment to its call. Return False if that call was already taken without it."""
        number = len(self._known) if fragment.index is None else fragment.index
        call = self._known.get(number)
        if call is None:
            call = self._known[number] = ToolCall(fragment.id or f"{self._prefix}_{number}")
            self._pending.append(call)
        call.name = call.name or fragment.name
        call.arguments += fragment.arguments
        return call in self._pending or not fragment.arguments.strip()

    def take_complete(self) -> list[ToolCall]:
        """Remove and return the leading calls that are complete and followed by another."""
        taken = []
        while len(self._pending) > 1 and self._pending[0].complete:
            taken.append(self._pending.pop(0))
        return taken

    def take_all(self) -> list[ToolCall]:
        """Remove and return all remaining calls, complete or not."""
        taken, self._pending = self._pending, []
        return taken

    @property
    def current(self) -> ToolCall | None:
        """The call that is being streamed, once its name is known."""
        return self._pending[0] if self._pending and self._pending[0].name else None
