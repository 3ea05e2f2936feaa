"""The account of one key: what its tasks may use, and what they have used. Owned by the Keyring."""

import itertools
import math
import time
from dataclasses import dataclass, field, replace

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.keys import KeySpec, KeyUsage
from queen_rbee.keys.limits import DAY_S, Bucket, Exceeded, Limits, Used, closed, exceeded, opened
from queen_rbee.keys.shares import Share, Shares

BYTES_PER_TOKEN = 4
FIRST_ANSWER = 256
"""Tokens that an answer is expected to have while none of the key is known."""
FIRST_DURATION_S = 2.0
SHORTEST_WAIT_S = 0.1
SMOOTHING = 0.2
"""The weight of the newest task in the averages."""
RETRY_LIMIT_S = 60.0
"""Clients that retry by themselves wait no longer than this, and try again too early."""
BUDGETS = ("tokens_per_day", "tokens_total")


@dataclass(frozen=True)
class Totals:
    """What is kept across restarts."""

    requests: int = 0
    refused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    day: int = 0
    tokens_today: int = 0


@dataclass(frozen=True)
class Charge:
    """A task on the account of a key. `tokens` are reserved for it; `number` tells it from the key's others."""

    account: "Account"
    share: Share
    tokens: int
    number: int = field(default_factory=itertools.count().__next__)

    @property
    def name(self) -> str:
        return self.account.name

    def check(self, now: float) -> None:
        """Raises ApiError 429 with the time of a retry if the task is above a limit of its key. Counts the refusal."""
        self.account.check(self, now)

    def open(self, now: float) -> None:
        """Call when the task is queued; `end` it later."""
        self.account.open(self, now)

    def end(self, tokens_in: int, tokens_out: int, now: float, *, started: bool) -> None:
        """Charge what the task has used. Only the first call after `open` counts."""
        self.account.end(self, tokens_in, tokens_out, now, started=started)


class Account:
    """`key` may be replaced by a reload. Without a key, after its removal, tasks that are open are still counted."""

    def __init__(self, key: KeySpec | None, name: str, shares: Shares, totals: Totals = Totals()) -> None:
        self.key = key
        self.name = name
        self.totals = totals
        self._shares = shares
        self._used = Used(
            day=totals.day,
            tokens_today=totals.tokens_today,
            tokens_total=totals.tokens_in + totals.tokens_out,
        )
        self._open: dict[int, float] = {}
        """When each open task was admitted, on trio's clock, the oldest first."""
        self._answer_tokens = float(FIRST_ANSWER)
        self._duration_s = FIRST_DURATION_S

    @property
    def limits(self) -> Limits:
        key = self.key
        if key is None:
            return Limits()
        return Limits(
            key.concurrency, key.requests_per_minute, key.tokens_per_minute, key.tokens_per_day, key.tokens_total
        )

    def charge(self, prompt_bytes: int, max_tokens: int | None) -> Charge:
        """Return the charge for a task that is about to be admitted, by what tasks of this key use."""
        answer = self._answer_tokens if max_tokens is None else min(max_tokens, self._answer_tokens)
        tokens = prompt_bytes // BYTES_PER_TOKEN + math.ceil(answer)
        return Charge(self, Share(self.name, self.key.weight if self.key else 1, tokens), tokens)

    def check(self, charge: Charge, now: float) -> None:
        found = exceeded(self.limits, self._used, charge.tokens, now, time.time(), self._next_end_s(now))
        if found:
            self.totals = replace(self.totals, refused=self.totals.refused + 1)
            raise above_limit(self.name, found, getattr(self.limits, found.limit))

    def open(self, charge: Charge, now: float) -> None:
        self._open[charge.number] = now
        self._used = opened(self.limits, self._used, charge.tokens, now)
        self.totals = replace(self.totals, requests=self.totals.requests + 1)

    def end(self, charge: Charge, tokens_in: int, tokens_out: int, now: float, *, started: bool) -> None:
        began = self._open.pop(charge.number, None)
        if began is None:
            return
        self._used = closed(self.limits, self._used, charge.tokens, tokens_in + tokens_out, now, time.time())
        self.totals = replace(
            self.totals,
            tokens_in=self.totals.tokens_in + tokens_in,
            tokens_out=self.totals.tokens_out + tokens_out,
            day=self._used.day,
            tokens_today=self._used.tokens_today,
        )
        if started:
            self._shares.correct(charge.share, tokens_in + tokens_out)
            self._duration_s += SMOOTHING * (now - began - self._duration_s)
            self._answer_tokens += SMOOTHING * (tokens_out - self._answer_tokens)

    def replace_key(self, key: KeySpec | None) -> None:
        """Apply another table to the account. A rate that is new or has changed begins with nothing used."""
        before, self.key = self.limits, key
        after = self.limits
        if before.requests_per_minute != after.requests_per_minute:
            self._used = replace(self._used, requests=Bucket())
        if before.tokens_per_minute != after.tokens_per_minute:
            self._used = replace(self._used, tokens=Bucket())

    def usage(self) -> KeyUsage:
        key, totals = self.key, self.totals
        return KeyUsage(
            key=self.name,
            requests=totals.requests,
            refused=totals.refused,
            tokens_in=totals.tokens_in,
            tokens_out=totals.tokens_out,
            tokens_today=totals.tokens_today if totals.day == int(time.time() // DAY_S) else 0,
            waiting_or_running=self._used.open,
            weight=key.weight if key else 1,
            tokens_per_day=key.tokens_per_day if key else None,
            tokens_total=key.tokens_total if key else None,
            expires=key.ends if key else None,
        )

    def _next_end_s(self, now: float) -> float:
        """Return in how many seconds the next open task ends, if it takes as long as others of this key."""
        oldest = next(iter(self._open.values()), now)
        return max(SHORTEST_WAIT_S, self._duration_s / max(1, len(self._open)), self._duration_s - (now - oldest))


def above_limit(name: str, found: Exceeded, limit: int | None) -> ApiError:
    """Return the 429 of a task above a limit. A retry at its Retry-After is within this limit, if no other task of the
    key comes first; for `concurrency` that is an estimate."""
    code = ErrorCode.BUDGET_EXHAUSTED if found.limit in BUDGETS else ErrorCode.RATE_LIMITED
    message = f"the key {name} has reached its limit of {found.limit.replace('_', ' ')}, {limit}"
    if found.wait_s is None:
        hint = "Ask the operator for a larger budget."
        return ApiError(429, ErrorBody(code=code, message=message, hint=hint, policy_label=found.limit))
    wait_ms = max(1, math.ceil(found.wait_s * 1000))
    seconds = -(-wait_ms // 1000)
    body = ErrorBody(
        code=code,
        message=message,
        hint=f"Try again in {seconds} s.",
        retriable=found.wait_s <= RETRY_LIMIT_S,
        retry_after_ms=wait_ms,
        policy_label=found.limit,
    )
    return ApiError(429, body, (("retry-after", str(seconds)), ("x-backoff-ms", str(wait_ms))))
