"""Steady requests in the background of a test, and what became of each."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.system.lab.waiting import until


@dataclass
class Load:
    """What has come of the requests so far: how many answered as they should, and the kinds of failure."""

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, failure: str | None) -> None:
        """One request is done; `failure` says what was wrong with it."""
        with self._lock:
            if failure is None:
                self.answered += 1
            else:
                self.failures[failure] += 1

    def wait_for_more(self, number: int = 10) -> None:
        """Return when `number` more requests have been answered. Raises TimeoutError."""
        goal = self.answered + number
        until(lambda: self.answered >= goal, f"{number} more answers (failures: {dict(self.failures)})")


@contextmanager
def under_load(request: Callable[[], str | None], workers: int = 3) -> Iterator[Load]:
    """Repeat `request` in `workers` threads while the block lasts.

    `request` returns what was wrong with the answer, or None; an exception of it counts as a failure too.
    """
    load, done = Load(), threading.Event()

    def work() -> None:
        while not done.is_set():
            try:
                load.count(request())
            except Exception as error:
                load.count(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, daemon=True) for _worker in range(workers)]
    for thread in threads:
        thread.start()
    try:
        load.wait_for_more()
        yield load
    finally:
        done.set()
        for thread in threads:
            thread.join()
