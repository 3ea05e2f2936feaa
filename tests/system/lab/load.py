"""Steady requests in the background of a test, and their results."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.system.lab.waiting import until


@dataclass
class Load:
    """Results so far: the number of successful requests, and failures by kind."""

    succeeded: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, failure: str | None) -> None:
        """Count a request. `failure` describes the failure, or is None."""
        with self._lock:
            if failure is None:
                self.succeeded += 1
            else:
                self.failures[failure] += 1

    def wait_for_more(self, number: int = 10) -> None:
        """Wait until `number` more requests have succeeded. Raises TimeoutError."""
        goal = self.succeeded + number
        until(lambda: self.succeeded >= goal, f"{number} more answers (failures: {dict(self.failures)})")


@contextmanager
def under_load(request: Callable[[], str | None], workers: int = 3) -> Iterator[Load]:
    """Repeat `request` in `workers` threads for the duration of the block.

    `request` returns a description of a failure, or None. An exception also counts as a failure.
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
