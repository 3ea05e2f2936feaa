"""How long an engine may send nothing: one cancel scope for a whole answer, whose deadline moves as output arrives.

Only output resets the timer. Signs of life (comments, empty chunks, a chat's role, prompt progress) do not extend the
wait for the first token, since that wait already allows for the prompt. Between tokens they do extend it, because
engines hold tokens back while a tool call or a character is incomplete, but never beyond the limit of the first token.
An engine that sends only signs of life is therefore abandoned too.
"""

from dataclasses import dataclass

import trio

SLACK = 1.1
"""Deadlines are set this factor late, so that not every token has to move one: moving costs as much as reading it."""


@dataclass(frozen=True)
class StallLimits:
    """How long an engine may send nothing, in seconds. The first token gets extra time for the prompt."""

    connect_s: float = 5.0
    first_token_s: float = 120.0
    per_prompt_kb_s: float = 2.0
    idle_s: float = 30.0

    def first(self, prompt_size: int) -> float:
        """Return the limit for the first token, connecting included. `prompt_size` is in bytes."""
        return self.first_token_s + self.per_prompt_kb_s * prompt_size / 1024


DEFAULT_LIMITS = StallLimits()


class StallTimer:
    """Cancels `scope` when the engine stalls. Times are trio's clock in seconds."""

    def __init__(self, limits: StallLimits, prompt_size: int, now: float) -> None:
        self.limits = limits
        self.scope = trio.CancelScope(deadline=now + limits.first(prompt_size))
        self._last_output_at = now
        self._started = False

    def received(self, now: float, *, token: bool) -> None:
        """Record that the engine sent something at `now`: output (`token`), or only a sign of life."""
        if token:
            self._last_output_at = now
            if not self._started:
                self._started = True
                self.scope.deadline = now + self.limits.idle_s * SLACK
                return
        elif not self._started:
            return
        if self.scope.deadline < now + self.limits.idle_s:
            longest_s = max(self.limits.first_token_s, self.limits.idle_s * SLACK)
            self.scope.deadline = min(now + self.limits.idle_s * SLACK, self._last_output_at + longest_s)

    def describe(self, now: float) -> str:
        return f"no output for {now - self._last_output_at:.3g} s"
