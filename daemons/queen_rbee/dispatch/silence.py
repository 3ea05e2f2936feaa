"""How long an engine may be silent: one cancel scope for a whole answer, whose deadline moves as the answer comes.

Only a part of the answer breaks the silence. What merely shows that the engine lives (comments, empty pieces, the role
of a chat, progress of the prompt) does not prolong the wait for the first token, which has been given time for the
prompt; later it does, since engines hold tokens back while a tool call or a character is incomplete, but no longer than
for the time that a first token has. So an engine that makes signs for ever and never an answer is left all the same.
"""

from dataclasses import dataclass

import trio

SLACK = 1.1
"""A deadline is set so much later than it must be, and so has to be moved once in a while only: moving it costs as much
as reading a token does."""


@dataclass(frozen=True)
class Limits:
    """How long an engine may be silent, in seconds. The first token is given time for the prompt too."""

    connect_s: float = 5.0
    first_token_s: float = 120.0
    per_prompt_kb_s: float = 2.0
    idle_s: float = 30.0

    def first(self, prompt_size: int) -> float:
        """How long the first token of a prompt of so many bytes may take, connecting included."""
        return self.first_token_s + self.per_prompt_kb_s * prompt_size / 1024


LIMITS = Limits()


class Silence:
    """The engine's silence so far; `scope` is cancelled when it lasts too long. Times are trio's clock in seconds."""

    def __init__(self, limits: Limits, prompt_size: int, now: float) -> None:
        self.limits = limits
        self.scope = trio.CancelScope(deadline=now + limits.first(prompt_size))
        self._since = now
        self._begun = False

    def heard(self, now: float, *, token: bool) -> None:
        """Something came at `now`: a part of the answer, or a sign of life."""
        if token:
            self._since = now
            if not self._begun:
                self._begun = True
                self.scope.deadline = now + self.limits.idle_s * SLACK
                return
        elif not self._begun:
            return
        if self.scope.deadline < now + self.limits.idle_s:
            self.scope.deadline = min(now + self.limits.idle_s * SLACK, self._since + self._longest_s)

    @property
    def _longest_s(self) -> float:
        return max(self.limits.first_token_s, self.limits.idle_s * SLACK)

    def words(self, now: float) -> str:
        """How long it has lasted."""
        return f"nothing of the answer for {now - self._since:.3g} s"
