"""Waiting for what comes about elsewhere: polled, and never longer than a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


def until(
    condition: Callable[[], T | None], what: str, limit_s: float = 20.0, explain: Callable[[], str] = lambda: ""
) -> T:
    """The first true value of `condition`.

    Raises TimeoutError after `limit_s` seconds: it says what did not come, the last value, and what `explain` adds.
    """
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit_s:g} s; the last look gave {value!r}\n{explain()}")
        time.sleep(POLL_S)
