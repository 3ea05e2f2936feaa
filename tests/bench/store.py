"""Rate of durable accepts of queen-rbee's store alone, with 64 concurrent callers and prompts of about 200 bytes.

Also measured: the waiting time of a caller, the CPU time of the serving and of the writing thread, with and without
other work on the serving thread, commits and waiting times at offered rates, a single accept compared with a plain
write to the same disk, the calls that do not wait, and the memory of an open store.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch
from uuid import UUID, uuid4

import trio

from queen_rbee.store.protocol import Document, StoredTask, StoreFailure
from queen_rbee.store.sqlite.batch import Batch
from queen_rbee.store.sqlite.database import Database
from queen_rbee.store.sqlite.store import SqliteStore, open_store
from tests.bench.admission import schedule
from tests.bench.figures import spread

CALLERS = 64
SECONDS = 5.0
TARGET_RATE = 1000
OFFERED_RATES = (50, 300, 1000, 1500)
"""Tasks per second. A low rate shows what one commit costs, a high one how many tasks share one."""
REQUEST = json.dumps({"prompt": ("a prompt of two hundred bytes " * 7)[:170], "max_tokens": 64})
OPEN_TASKS = 1000
"""Number of open tasks; older ones end."""
PIECE_INTERVAL_S = 0.0002
"""Interval between pieces of other work, similar to that of requests."""
ALONE, CALLS, LATER = 200, 2000, 10_000
PAGE = bytes(4096)


def task() -> StoredTask:
    """Return a task like those of clients."""
    return StoredTask(uuid4(), uuid4(), REQUEST, str(uuid4()), time.time())


@dataclass
class Accepted:
    """Durations of accepts in seconds, and the open tasks."""

    waits: list[float] = field(default_factory=list)
    opened: deque[UUID] = field(default_factory=deque)
    other_s: float = 0.0
    """Time that other work used on the serving thread."""

    async def one(self, store: SqliteStore) -> None:
        """Accept a task, and end the oldest one."""
        newest, begun = task(), time.perf_counter()
        await store.accept(newest)
        self.waits.append(time.perf_counter() - begun)
        self.opened.append(newest.task_id)
        if len(self.opened) > OPEN_TASKS:
            oldest = self.opened.popleft()
            store.mark_delivered(oldest)
            store.mark_ended(oldest)


async def _caller(store: SqliteStore, until: float, accepted: Accepted) -> None:
    while time.perf_counter() < until:
        await accepted.one(store)


async def _other_work(share: float, until: float, accepted: Accepted) -> None:
    """Keep this thread busy for a share of the time, in small pieces."""
    begun = time.perf_counter()
    while (now := time.perf_counter()) < until:
        owed = share * (now - begun) - accepted.other_s
        while time.perf_counter() < now + owed:
            pass
        accepted.other_s += time.perf_counter() - now
        await trio.sleep(PIECE_INTERVAL_S)


async def _saturated(store: SqliteStore, busy: float) -> Accepted:
    accepted, until = Accepted(), time.perf_counter() + SECONDS
    async with trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(_other_work, busy, until, accepted)
        for _caller_number in range(CALLERS):
            nursery.start_soon(_caller, store, until, accepted)
    return accepted


async def accepts(directory: Path, busy: float) -> None:
    """Print rate, waiting times and CPU time, with other work that takes the share `busy` of the serving thread."""
    async with open_store(directory) as store:
        begun, serving, both = time.perf_counter(), time.thread_time(), time.process_time()
        accepted = await _saturated(store, busy)
        took, serving = time.perf_counter() - begun, time.thread_time() - serving
        writing = time.process_time() - both - serving
    count, other = len(accepted.waits), accepted.other_s / took
    print(f"store, {CALLERS} callers, {other:.0%} other work on the serving thread: {count / took:.0f} accepts/s")
    print(f"  {count / took / TARGET_RATE:.1f} times the target of {TARGET_RATE}; waits: {spread(accepted.waits)}")
    own = "" if busy else f", {1e6 * serving / count:.0f} us of the serving thread"
    print(f"  each accept: {1e6 * writing / count:.0f} us of the writing thread{own}")


@contextmanager
def counted_commits() -> Iterator[Counter[str]]:
    """Count the batches that are written during the block, and their tasks."""
    counts, work = Counter[str](), Database.work

    def counting(database: Database, batch: Batch) -> StoreFailure | None:
        counts["commits"] += batch.writes
        counts["tasks"] += len(batch.tasks)
        return work(database, batch)

    with patch.object(Database, "work", counting):
        yield counts


async def offered(directory: Path, rate: int) -> None:
    """Print waiting times, commits and CPU per task at a fixed rate of accepts."""
    accepted = Accepted()
    async with open_store(directory) as store:
        with counted_commits() as counts:
            begun, serving, both = trio.current_time(), time.thread_time(), time.process_time()
            async with trio.open_nursery() as nursery:
                for due in schedule(rate, SECONDS):
                    await trio.sleep_until(begun + due)
                    nursery.start_soon(accepted.one, store)
            serving, both = time.thread_time() - serving, time.process_time() - both
    count = len(accepted.waits)
    print(f"store, {rate} accepts/s offered: {spread(accepted.waits)}; {counts['commits'] / SECONDS:.0f} commits/s")
    print(f"  {counts['tasks'] / counts['commits']:.1f} tasks per commit, ", end="")
    print(f"{1e6 * serving / count:.0f} us of the serving and {1e6 * (both - serving) / count:.0f} us ", end="")
    print("of the writing thread per task")


async def alone(directory: Path) -> None:
    """Print the duration of a single accept compared with a plain synchronous write to the same disk."""
    accepted, bare = Accepted(), []
    async with open_store(directory) as store:
        with (directory / "bare").open("wb", buffering=0) as file:
            for _turn in range(ALONE):
                await accepted.one(store)
                begun = time.perf_counter()
                file.write(PAGE)
                os.fdatasync(file.fileno())
                bare.append(time.perf_counter() - begun)
    one, page = statistics.median(accepted.waits), statistics.median(bare)
    print(f"store, one caller: an accept takes {1000 * one:.2f} ms, {one / page:.1f} times a plain synchronous write")


async def calls(directory: Path) -> None:
    """Print the duration of the calls that do not wait."""
    async with open_store(directory) as store:
        tasks = [task() for _number in range(CALLS)]
        async with trio.open_nursery() as nursery:
            for each in tasks:
                nursery.start_soon(store.accept, each)
        delivered, ended = (_median_us(call, tasks) for call in (store.mark_delivered, store.mark_ended))
        begun = time.perf_counter()
        for number in range(LATER):
            store.put_later("record", Document(str(number), REQUEST))
        await store.get("record", "0")
        later = 1e6 * (time.perf_counter() - begun) / LATER
    print(f"store: delivered {delivered:.1f} us, ended {ended:.1f} us (medians); put_later {later:.0f} us until stored")


def _median_us(call: Callable[[UUID], None], tasks: list[StoredTask]) -> float:
    times = []
    for each in tasks:
        begun = time.perf_counter()
        call(each.task_id)
        times.append(time.perf_counter() - begun)
    return 1e6 * statistics.median(times)


MEMORY = """
import sys, trio
from pathlib import Path
from queen_rbee.store.protocol import Document
import llama_orch.telemetry.records, llama_orch.spool, llama_orch.service.watchdog, json
def kib(): return int(open("/proc/self/statm").read().split()[1]) * 4
async def main():
    await trio.to_thread.run_sync(int)
    before = kib()
    from queen_rbee.store.sqlite.store import open_store
    async with open_store(Path(sys.argv[1])) as store:
        await store.ping()
        print(kib() - before)
trio.run(main)
"""
"""Modules that queen-rbee imports in any case are imported before the measurement."""


def memory(directory: Path) -> None:
    """Print the memory usage of an open store."""
    words = [sys.executable, "-c", MEMORY, str(directory)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"}
    found = subprocess.run(words, check=True, capture_output=True, text=True, env=environ)
    print(f"store, memory when open: {int(found.stdout) / 1024:.1f} MiB")


def main() -> None:
    """Run all measurements, each in a new directory."""
    with tempfile.TemporaryDirectory(prefix="store-") as name:
        top = Path(name)
        for number, busy in enumerate((0.0, 0.5, 0.8)):
            trio.run(accepts, top / str(number), busy)
        for rate in OFFERED_RATES:
            trio.run(offered, top / f"offered-{rate}", rate)
        trio.run(alone, top / "alone")
        trio.run(calls, top / "calls")
        memory(top / "memory")


if __name__ == "__main__":
    main()
