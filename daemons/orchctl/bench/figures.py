"""The figures of a benchmark, from the samples of its requests. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llama_orch.contracts.base import Outbound


@dataclass(frozen=True)
class Sample:
    """One answered request. Times are in seconds since the beginning of its run; tokens are those of `usage`.

    `first_at` is the time of the first text; None if the answer had none.
    """

    sent_at: float
    first_at: float | None
    ended_at: float
    tokens_in: int
    tokens_out: int


@dataclass
class Run:
    """The requests of one number of clients. `errors` counts failures by message; `seconds` is the time of the run."""

    clients: int
    samples: list[Sample] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def fail(self, message: str) -> None:
        """Count an error. At most MAX_MESSAGES different messages are kept; the rest counts as one."""
        known = message in self.errors or len(self.errors) < MAX_MESSAGES
        key = message if known else "other errors"
        self.errors[key] = self.errors.get(key, 0) + 1


MAX_MESSAGES = 8


class Figures(Outbound):
    """What one run measured. Times to the first token are in ms, rates in tokens of answers per second.

    `tokens_per_s` is that of all clients together over the run, `tokens_per_s_client` the median over requests of the
    rate after the first token. They are null without a request that measures them.
    """

    clients: int
    requests: int
    errors: int
    error_messages: dict[str, int]
    seconds: float
    tokens_in: int
    tokens_out: int
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tokens_per_s: float | None
    tokens_per_s_client: float | None


def figures(run: Run) -> Figures:
    """Return the figures of a run."""
    waits = [1000 * (sample.first_at - sample.sent_at) for sample in run.samples if sample.first_at is not None]
    rates = [rate for sample in run.samples if (rate := rate_of(sample)) is not None]
    tokens_out = sum(sample.tokens_out for sample in run.samples)
    return Figures(
        clients=run.clients,
        requests=len(run.samples),
        errors=sum(run.errors.values()),
        error_messages=dict(run.errors),
        seconds=round(run.seconds, 3),
        tokens_in=sum(sample.tokens_in for sample in run.samples),
        tokens_out=tokens_out,
        ttft_p50_ms=_rounded(percentile(waits, 50)),
        ttft_p99_ms=_rounded(percentile(waits, 99)),
        tokens_per_s=_rounded(tokens_out / run.seconds if run.seconds > 0 and tokens_out else None),
        tokens_per_s_client=_rounded(percentile(rates, 50)),
    )


def rate_of(sample: Sample) -> float | None:
    """Return tokens per second after the first token; None for answers of less than two tokens."""
    if sample.first_at is None or sample.tokens_out < 2 or sample.ended_at <= sample.first_at:
        return None
    return (sample.tokens_out - 1) / (sample.ended_at - sample.first_at)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that at least `percent` percent of `values` do not exceed; None without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def usage_tokens(usage: Mapping[str, object] | None, name: str) -> int:
    """Return a count of `usage`; 0 if the engine did not send it."""
    value = (usage or {}).get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
