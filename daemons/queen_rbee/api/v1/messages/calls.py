"""The tool calls of an answer in the order in which they are shown: one after the other, each complete."""

import json
from dataclasses import dataclass

from queen_rbee.api.v1.messages.chunks import CallPiece


@dataclass
class ToolCall:
    """One call, as far as it has come. `shown` characters of its arguments have been passed on."""

    id: str
    name: str = ""
    arguments: str = ""
    shown: int = 0

    @property
    def complete(self) -> bool:
        """Whether its arguments are a whole object."""
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False

    def news(self) -> str:
        """What has come of the arguments since the last call."""
        found, self.shown = self.arguments[self.shown :], len(self.arguments)
        return found


class ToolCalls:
    """All calls of an answer: OpenAI's pieces may come in any order, Anthropic's blocks follow one another.

    The first call that is not complete is passed on as it comes; what comes of later ones waits for it.
    """

    def __init__(self, answer_id: str) -> None:
        self._answer_id = answer_id
        self._known: dict[int, ToolCall] = {}
        self._waiting: list[ToolCall] = []

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, piece: CallPiece) -> bool:
        """Add a piece to its call; False where that call has been given away without it."""
        number = len(self._known) if piece.index is None else piece.index
        call = self._known.get(number)
        if call is None:
            call = self._known[number] = ToolCall(piece.id or f"toolu_{self._answer_id}_{number}")
            self._waiting.append(call)
        call.name = call.name or piece.name
        call.arguments += piece.arguments
        return call in self._waiting or not piece.arguments.strip()

    def take_complete(self) -> list[ToolCall]:
        """The calls of which nothing more is awaited: complete, and another follows. They are given away."""
        found = []
        while len(self._waiting) > 1 and self._waiting[0].complete:
            found.append(self._waiting.pop(0))
        return found

    def take_all(self) -> list[ToolCall]:
        """All calls that have not been given away, complete or not; they are now."""
        found, self._waiting = self._waiting, []
        return found

    @property
    def current(self) -> ToolCall | None:
        """The call that is passed on as it comes, once its name is known."""
        return self._waiting[0] if self._waiting and self._waiting[0].name else None
