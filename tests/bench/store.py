"""How many tasks a second the queen's store accepts durably, alone: 64 callers at once, prompts of about 200 bytes.

Beside the rate: how long a caller waits, what an accept costs the thread that serves requests and the one that writes,
the same where the serving thread is busy with other work, what one accept takes beside one bare write to the same
disk, what the calls cost that do not wait for it, and what an open store costs in memory.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import trio

from queen_rbee.store.protocol import Document, StoredTask
from queen_rbee.store.sqlite.store import SqliteStore, open_store
from tests.bench.figures import spread

CALLERS = 64
SECONDS = 5.0
WANTED = 1000
REQUEST = json.dumps({"prompt": ("a prompt of two hundred bytes " * 7)[:170], "max_tokens": 64})
OPEN_TASKS = 1000
"""So many tasks are open at a time; older ones end, as they do in a queen that keeps up."""
APART_S = 0.0002
"""Other work comes in pieces a few tenths of a millisecond apart, as requests do."""
ALONE, CALLS, LATER = 200, 2000, 10_000
PAGE = bytes(4096)


def task() -> StoredTask:
    """A task as a client may hand it in."""
    return StoredTask(uuid4(), uuid4(), REQUEST, str(uuid4()), time.time())


@dataclass
class Accepted:
    """How long each accept took, in seconds; which tasks are open."""

    waits: list[float] = field(default_factory=list)
    opened: deque[UUID] = field(default_factory=deque)
    other_s: float = 0.0
    """What other work took of the serving thread meanwhile."""

    async def one(self, store: SqliteStore) -> None:
        """One more, and the oldest ends."""
        mine, begun = task(), time.perf_counter()
        await store.accept(mine)
        self.waits.append(time.perf_counter() - begun)
        self.opened.append(mine.task_id)
        if len(self.opened) > OPEN_TASKS:
            oldest = self.opened.popleft()
            store.mark_delivered(oldest)
            store.mark_ended(oldest)


async def _caller(store: SqliteStore, until: float, accepted: Accepted) -> None:
    while time.perf_counter() < until:
        await accepted.one(store)


async def _other_work(share: float, until: float, accepted: Accepted) -> None:
    """Keep this thread busy for a share of the time, a piece at a time."""
    begun = time.perf_counter()
    while (now := time.perf_counter()) < until:
        owed = share * (now - begun) - accepted.other_s
        while time.perf_counter() < now + owed:
            pass
        accepted.other_s += time.perf_counter() - now
        await trio.sleep(APART_S)


async def _saturated(store: SqliteStore, busy: float) -> Accepted:
    accepted, until = Accepted(), time.perf_counter() + SECONDS
    async with trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(_other_work, busy, until, accepted)
        for _caller_number in range(CALLERS):
            nursery.start_soon(_caller, store, until, accepted)
    return accepted


async def accepts(directory: Path, busy: float) -> None:
    """Print the rate, the waits and what an accept costs where other work takes `busy` of the serving thread."""
    async with open_store(directory) as store:
        begun, serving, both = time.perf_counter(), time.thread_time(), time.process_time()
        accepted = await _saturated(store, busy)
        took, serving = time.perf_counter() - begun, time.thread_time() - serving
        writing = time.process_time() - both - serving
    count, other = len(accepted.waits), accepted.other_s / took
    print(f"store, {CALLERS} callers, serving thread otherwise {other:.0%} busy: {count / took:.0f} durable accepts/s")
    print(f"  that is {count / took / WANTED:.1f} times the {WANTED} wanted; waits: {spread(accepted.waits)}")
    own = "" if busy else f", {1e6 * serving / count:.0f} us of the serving one"
    print(f"  each costs {1e6 * writing / count:.0f} us of the writing thread{own}")


async def alone(directory: Path) -> None:
    """Print what one caller waits for, beside one bare write that reaches the same disk, in turns."""
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
    print(f"store, one caller: an accept takes {1000 * one:.2f} ms, {one / page:.1f} times a bare synchronous write")


async def calls(directory: Path) -> None:
    """Print what the calls cost that do not wait."""
    async with open_store(directory) as store:
        tasks = [task() for _number in range(CALLS)]
        async with trio.open_nursery() as nursery:
            for each in tasks:
                nursery.start_soon(store.accept, each)
        delivered, ended = (_median_us(deed, tasks) for deed in (store.mark_delivered, store.mark_ended))
        begun = time.perf_counter()
        for number in range(LATER):
            store.put_later("record", Document(str(number), REQUEST))
        await store.get("record", "0")
        later = 1e6 * (time.perf_counter() - begun) / LATER
    print(f"store: delivered {delivered:.1f} us, ended {ended:.1f} us (medians); put_later {later:.0f} us until stored")


def _median_us(deed: Callable[[UUID], None], tasks: list[StoredTask]) -> float:
    times = []
    for each in tasks:
        begun = time.perf_counter()
        deed(each.task_id)
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
    from queen_rbee.store.sqlite import open_store
    async with open_store(Path(sys.argv[1])) as store:
        await store.ping()
        print(kib() - before)
trio.run(main)
"""
"""What the queen has loaded anyway is loaded first."""


def memory(directory: Path) -> None:
    """Print what an open store costs."""
    words = [sys.executable, "-c", MEMORY, str(directory)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"}
    found = subprocess.run(words, check=True, capture_output=True, text=True, env=environ)
    print(f"store, open and used once: {int(found.stdout) / 1024:.1f} MiB")


def main() -> None:
    """Print all of it, in directories of their own."""
    with tempfile.TemporaryDirectory(prefix="store-") as name:
        top = Path(name)
        for number, busy in enumerate((0.0, 0.5, 0.8)):
            trio.run(accepts, top / str(number), busy)
        trio.run(alone, top / "alone")
        trio.run(calls, top / "calls")
        memory(top / "memory")


if __name__ == "__main__":
    main()
