"""A killed queen loses no promised state, and ended tasks do not come back.

Run as a program, this module is the queen that is killed. It prints every operation as soon as it has returned.
"""

import itertools
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from uuid import UUID

import trio

from queen_rbee.store.protocol import Document, StoredTask
from queen_rbee.store.sqlite.store import SqliteStore, open_store

CALLERS = 16
KILL_AFTER_LINES = (3, 400, 2500)
"""The number of lines after which each queen is killed, in turn on the same directory."""
NUMBERS_PER_ROUND = 1_000_000
"""Each round uses its own range of task numbers."""


def task(number: int) -> StoredTask:
    return StoredTask(UUID(int=number), UUID(int=number), "x" * (number % 3000), "c", float(number))


def report(operation: str, number: int) -> None:
    os.write(1, f"{operation} {number}\n".encode())


async def caller(store: SqliteStore, numbers: "itertools.count[int]") -> None:
    """Accept, deliver and end tasks forever; two of three end."""
    for number in numbers:
        await store.accept(task(number))
        report("accepted", number)
        if number % 2:
            store.mark_delivered(UUID(int=number))
            report("delivered", number)
        if number % 3:
            report("ending", number)
            store.mark_ended(UUID(int=number))
            report("ended", number)
        if number % 10 == 0:
            await store.put("model", Document(str(number), "{}"))
            report("put", number)


async def victim(directory: Path, first: int) -> None:
    numbers = itertools.count(first)
    async with open_store(directory) as store, trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller, store, numbers)


def killed(directory: Path, first: int, after: int) -> dict[str, set[int]]:
    """Run a queen, kill it after `after` lines, and return the operations it reported."""
    reported: dict[str, set[int]] = defaultdict(set)
    command = [sys.executable, "-m", __name__, str(directory), str(first)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout
        for count, line in enumerate(process.stdout):
            operation, number = line.split()
            reported[operation].add(int(number))
            if count == after:
                process.kill()
    return reported


async def test_killed_queen_keeps_promised_state(tmp_path: Path) -> None:
    reported: dict[str, set[int]] = defaultdict(set)
    for turn, after in enumerate(KILL_AFTER_LINES):
        for operation, numbers in killed(tmp_path, 1 + turn * NUMBERS_PER_ROUND, after).items():
            reported[operation] |= numbers
        async with open_store(tmp_path) as store:
            open_tasks = await store.open_tasks()
            for each in open_tasks:
                if each.ended:
                    store.mark_ended(each.task_id)
            found = {each.task_id.int: each for each in await store.open_tasks()}
            unknown = {each.task_id.int for each in open_tasks if each.ended}
            models = {int(document.key) for document in await store.list_documents("model")}
        assert reported["accepted"] - reported["ending"] <= found.keys()
        assert not reported["ended"] & found.keys()
        assert unknown <= reported["ending"]
        assert reported["put"] <= models
        assert all(found[number].delivered for number in reported["delivered"] & found.keys())
        assert not any(each.delivered for number, each in found.items() if number % 2 == 0)
        assert list(found) == sorted(found)
        for number, each in found.items():
            # two starts per round: the killed queen, and the one that reads
            assert (each.request, each.generation) == (
                task(number).request,
                2 * (turn - number // NUMBERS_PER_ROUND) + 1,
            )


if __name__ == "__main__":
    trio.run(victim, Path(sys.argv[1]), int(sys.argv[2]))
