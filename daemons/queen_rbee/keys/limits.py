"""The limits of one key: what is used up, how long that lasts, and what a task takes. Pure functions.

Times `now` are trio's clock, `wall` seconds since the epoch. A rate is a bucket that holds one minute's amount and is
refilled evenly: who has paused for a minute may send a minute's amount at once.
"""

from dataclasses import dataclass, replace

DAY_S = 86400
MINUTE_S = 60.0


@dataclass(frozen=True)
class Limits:
    """What a key may use; None is no limit."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_total: int | None = None


@dataclass(frozen=True)
class Bucket:
    """How much of a minute's amount was used at the time `at`. Negative if tasks took more than they were taken for."""

    used: float = 0.0
    at: float = float("-inf")


@dataclass(frozen=True)
class Used:
    """What a key has used. `open` tasks wait or run, and have reserved `reserved` tokens of the budgets."""

    requests: Bucket = Bucket()
    tokens: Bucket = Bucket()
    open: int = 0
    reserved: int = 0
    day: int = 0
    """Days since the epoch, to which `tokens_today` belongs."""
    tokens_today: int = 0
    tokens_total: int = 0


@dataclass(frozen=True)
class Exceeded:
    """The limit (its name in keys.toml) that refuses a task, and for how many seconds; None: for ever."""

    limit: str
    wait_s: float | None


def leaked(bucket: Bucket, per_minute: int, now: float) -> float:
    """Return how much of the bucket is used at `now`."""
    return max(0.0, bucket.used - max(0.0, now - bucket.at) * per_minute / MINUTE_S) if bucket.used else 0.0


def spent(bucket: Bucket, amount: float, per_minute: int | None, now: float) -> Bucket:
    """Return the bucket after `amount` more was used. A negative amount gives back what was not needed."""
    if per_minute is None:
        return bucket
    return Bucket(max(0.0, leaked(bucket, per_minute, now) + amount), now)


def wait_s(bucket: Bucket, amount: float, per_minute: int, now: float) -> float:
    """Return in how many seconds the bucket has `amount`, or all that it can have if that is less."""
    excess = leaked(bucket, per_minute, now) + min(amount, per_minute) - per_minute
    return max(0.0, excess * MINUTE_S / per_minute)


def exceeded(limits: Limits, used: Used, tokens: int, now: float, wall: float, next_end_s: float) -> Exceeded | None:
    """Return why a task of about `tokens` tokens is refused: the limit that lasts longest. None if it is admitted.

    `next_end_s` is in how many seconds the next open task of the key is expected to end.
    """
    found = []
    if limits.tokens_total is not None and used.tokens_total + used.reserved >= limits.tokens_total:
        lasts = used.tokens_total >= limits.tokens_total
        found.append(Exceeded("tokens_total", None if lasts else next_end_s))
    if limits.tokens_per_day is not None:
        today = used.tokens_today if used.day == int(wall // DAY_S) else 0
        if today >= limits.tokens_per_day:
            found.append(Exceeded("tokens_per_day", DAY_S - wall % DAY_S))
        elif today + used.reserved >= limits.tokens_per_day:
            found.append(Exceeded("tokens_per_day", next_end_s))
    if limits.concurrency is not None and used.open >= limits.concurrency:
        found.append(Exceeded("concurrency", next_end_s))
    if limits.requests_per_minute is not None:
        lasts_s = wait_s(used.requests, 1, limits.requests_per_minute, now)
        found += [Exceeded("requests_per_minute", lasts_s)] if lasts_s > 0 else []
    if limits.tokens_per_minute is not None:
        lasts_s = wait_s(used.tokens, tokens, limits.tokens_per_minute, now)
        found += [Exceeded("tokens_per_minute", lasts_s)] if lasts_s > 0 else []
    return max(found, key=lambda each: float("inf") if each.wait_s is None else each.wait_s, default=None)


def opened(limits: Limits, used: Used, tokens: int, now: float) -> Used:
    """Return what is used once a task of about `tokens` tokens is admitted."""
    return replace(
        used,
        requests=spent(used.requests, 1, limits.requests_per_minute, now),
        tokens=spent(used.tokens, min(tokens, limits.tokens_per_minute or 0), limits.tokens_per_minute, now),
        open=used.open + 1,
        reserved=used.reserved + tokens,
    )


def closed(limits: Limits, used: Used, reserved: int, tokens: int, now: float, wall: float) -> Used:
    """Return what is used once a task that `reserved` so many tokens has ended and used `tokens`."""
    day = int(wall // DAY_S)
    taken = min(reserved, limits.tokens_per_minute or 0)
    return replace(
        used,
        tokens=spent(used.tokens, tokens - taken, limits.tokens_per_minute, now),
        open=max(0, used.open - 1),
        reserved=max(0, used.reserved - reserved),
        day=day,
        tokens_today=tokens + (used.tokens_today if used.day == day else 0),
        tokens_total=used.tokens_total + tokens,
    )
