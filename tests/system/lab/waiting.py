"""Polling for a condition with a time limit."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


def until(
    condition: Callable[[], T | None], what: str, limit_s: float = 20.0, explain: Callable[[], str] = lambda: ""
) -> T:
    """Return the first true value of `condition`.

    Raises TimeoutError after `limit_s` seconds, with `what`, the last value and the result of `explain`.
    """
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit_s:g} s; last value: {value!r}\n{explain()}")
        time.sleep(POLL_S)
