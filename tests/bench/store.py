"""How many tasks a second the queen's store accepts durably, alone: 64 callers at once, prompts of about 200 bytes.

Beside the rate: how long a caller waits, what each accept costs the thread that serves requests and the one that writes,
the same where that thread is busy with other work, what a commit costs that waits for the disk and one that does not,
and what an open store costs in memory.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import trio

from queen_rbee.store.protocol import Document, StoredTask
from queen_rbee.store.sqlite import SqliteStore, open_store

CALLERS = 64
SECONDS = 5.0
WANTED = 1000
REQUEST = '{"prompt":"%s","max_tokens":64}' % ("a prompt of two hundred bytes " * 7)[:170]
OPEN_TASKS = 1000
"""So many tasks are open at a time; older ones end, as they do in a queen that keeps up."""


def task() -> StoredTask:
    """A task as a client may hand it in."""
    return StoredTask(uuid4(), uuid4(), REQUEST, str(uuid4()), time.time())


async def caller(store: SqliteStore, until: float, waits: list[float], opened: list[StoredTask]) -> None:
    """Hand in tasks, one after the other, and end the oldest."""
    while time.perf_counter() < until:
        mine, begun = task(), time.perf_counter()
        await store.accept(mine)
        waits.append(time.perf_counter() - begun)
        opened.append(mine)
        if len(opened) > OPEN_TASKS:
            store.delivered(opened[0].task_id)
            store.ended(opened.pop(0).task_id)


async def other_work(share: float) -> None:
    """Keep this thread busy for a share of the time, a fifth of a millisecond at a stretch, as requests do."""
    while True:
        begun = time.perf_counter()
        while time.perf_counter() - begun < 0.0002:
            pass
        await trio.sleep(0.0002 * (1 / share - 1))


async def accepts(directory: Path, busy: float) -> None:
    """Print the rate and the waits."""
    waits: list[float] = []
    opened: list[StoredTask] = []
    async with open_store(directory) as store, trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(other_work, busy)
        begun, mine, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
        async with trio.open_nursery() as callers:
            for _ in range(CALLERS):
                callers.start_soon(caller, store, begun + SECONDS, waits, opened)
        took, mine = time.perf_counter() - begun, time.thread_time() - mine
        others = time.process_time() - all_threads - mine
        nursery.cancel_scope.cancel()
    count, waits = len(waits), sorted(waits)
    p50, p99 = (1000 * waits[int(count * share)] for share in (0.5, 0.99))
    print(f"store, {CALLERS} callers, thread otherwise {busy:.0%} busy: {count / took:.0f} durable accepts/s", end="")
    print(f" (wanted: more than {WANTED}); wait {p50:.1f} ms (median), {p99:.1f} ms (99 of 100)", end="")
    print(f"; each costs {1e6 * others / count:.0f} us of the writing thread" + "," * (not busy), end="")
    print("" if busy else f" {1e6 * mine / count:.0f} us of the serving one")


async def commits(directory: Path) -> None:
    """Print what the wait for the disk costs."""
    async with open_store(directory) as store:
        alone: list[float] = []
        for _ in range(200):
            begun = time.perf_counter()
            await store.accept(task())
            alone.append(1000 * (time.perf_counter() - begun))
        begun = time.perf_counter()
        for number in range(10_000):
            store.put_later("record", Document(str(number), REQUEST))
        await store.get("record", "0")
        later = 1e6 * (time.perf_counter() - begun) / 10_000
    print(f"store, one caller: {statistics.median(alone):.2f} ms an accept; put_later {later:.0f} us", end="")


def calls(directory: Path) -> None:
    """Print what the calls cost that do not wait."""

    async def measured() -> tuple[float, float]:
        async with open_store(directory) as store:
            tasks = [task() for _ in range(2000)]
            async with trio.open_nursery() as nursery:
                for each in tasks:
                    nursery.start_soon(store.accept, each)
            return tuple(per_call(tasks, deed) for deed in (store.delivered, store.ended))

    def per_call(tasks: list[StoredTask], deed: Callable[..., None]) -> float:
        times = []
        for each in tasks:
            begun = time.perf_counter()
            deed(each.task_id)
            times.append(time.perf_counter() - begun)
        return 1e6 * statistics.median(times)

    delivered, ended = trio.run(measured)
    print(f"; delivered {delivered:.1f} us, ended {ended:.1f} us (medians)")


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
        trio.run(commits, top / "one")
        calls(top / "calls")
        memory(top / "memory")


if __name__ == "__main__":
    main()
