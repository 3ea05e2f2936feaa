"""What is measured of one task: when it passed each stage, and its tokens."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from llama_orch.contracts.tasks import Timings, Usage


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Measurements:
    """Times ending in `_at` are trio's clock in seconds, those in `_wall` are UTC.

    `sent_at` is when the request went to the engine, `answered_at` when the first byte of its answer arrived; both are
    of the current attempt. Token counts are the engine's own once the task is done.
    """

    submitted_at: float
    submitted_wall: datetime = field(default_factory=_now)
    started_at: float | None = None
    started_wall: datetime | None = None
    sent_at: float | None = None
    answered_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    ended_wall: datetime | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int | None = None
    """Prompt tokens that the engine found in its KV cache; None if it does not report them."""

    def start(self, now: float) -> None:
        """The task got a slot."""
        self.started_at, self.started_wall = now, _now()

    def reset_start(self) -> None:
        """The task lost its slot before the answer started."""
        self.started_at = self.started_wall = self.sent_at = self.answered_at = None

    def end(self, now: float) -> None:
        self.ended_at, self.ended_wall = now, _now()

    @property
    def overhead_ms(self) -> float | None:
        """Time to first token without the wait for a slot and without the engine's own time."""
        total = _elapsed_ms(self.submitted_at, self.first_token_at)
        queued = _elapsed_ms(self.submitted_at, self.started_at)
        engine = _elapsed_ms(self.sent_at, self.answered_at)
        return None if total is None or queued is None or engine is None else round(total - queued - engine, 3)

    @property
    def decode_ms(self) -> float | None:
        """Time from the first token to the end."""
        return _elapsed_ms(self.first_token_at, self.ended_at)

    @property
    def usage(self) -> Usage:
        return Usage.model_construct(tokens_in=self.tokens_in, tokens_out=self.tokens_out)

    @property
    def timings(self) -> Timings:
        return Timings.model_construct(
            submitted_at=self.submitted_wall,
            started_at=self.started_wall,
            ended_at=self.ended_wall,
            queued_ms=_elapsed_ms(self.submitted_at, self.started_at),
            first_token_ms=_elapsed_ms(self.submitted_at, self.first_token_at),
            decode_ms=self.decode_ms,
        )


def _elapsed_ms(start: float | None, stop: float | None) -> float | None:
    return None if start is None or stop is None else round((stop - start) * 1000, 3)
