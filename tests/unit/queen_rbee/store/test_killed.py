"""A queen that is killed at work loses nothing that she has promised, and nothing that had ended comes back.

Run as a program, this module is the queen that is killed: she says what she has done as soon as it is done.
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
MOMENTS = (3, 400, 2500)
"""After how many lines each queen is killed, one after the other on the same directory."""
NUMBERS = 1_000_000
"""Each round has numbers of its own."""


def task(number: int) -> StoredTask:
    return StoredTask(UUID(int=number), UUID(int=number), "x" * (number % 3000), "c", float(number))


def say(deed: str, number: int) -> None:
    os.write(1, f"{deed} {number}\n".encode())


async def caller(store: SqliteStore, numbers: "itertools.count[int]") -> None:
    """Accept, show, end and record tasks for ever; two of three end."""
    for number in numbers:
        await store.accept(task(number))
        say("accepted", number)
        if number % 2:
            store.delivered(UUID(int=number))
            say("delivered", number)
        if number % 3:
            say("ending", number)
            store.ended(UUID(int=number))
            say("ended", number)
        if number % 10 == 0:
            await store.put("model", Document(str(number), "{}"))
            say("put", number)


async def victim(directory: Path, first: int) -> None:
    numbers = itertools.count(first)
    async with open_store(directory) as store, trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller, store, numbers)


def killed(directory: Path, first: int, after: int) -> dict[str, set[int]]:
    """What a queen said that she did, until she was killed `after` so many lines."""
    said: dict[str, set[int]] = defaultdict(set)
    words = [sys.executable, "-m", __name__, str(directory), str(first)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout
        for count, line in enumerate(process.stdout):
            deed, number = line.split()
            said[deed].add(int(number))
            if count == after:
                process.kill()
    return said


async def test_what_was_accepted_is_there_what_ended_is_not_and_what_was_shown_is_known(tmp_path: Path) -> None:
    said: dict[str, set[int]] = defaultdict(set)
    for turn, after in enumerate(MOMENTS):
        for deed, numbers in killed(tmp_path, 1 + turn * NUMBERS, after).items():
            said[deed] |= numbers
        async with open_store(tmp_path) as store:
            open_tasks = await store.open_tasks()
            for each in open_tasks:
                if each.ended:
                    store.ended(each.task_id)
            found = {each.task_id.int: each for each in await store.open_tasks()}
            unknown = {each.task_id.int for each in open_tasks if each.ended}
            models = {int(document.key) for document in await store.listed("model")}
        assert said["accepted"] - said["ending"] <= found.keys()
        assert not said["ended"] & found.keys()
        assert unknown <= said["ending"]
        assert said["put"] <= models
        assert all(found[number].delivered for number in said["delivered"] & found.keys())
        assert not any(each.delivered for number, each in found.items() if number % 2 == 0)
        assert list(found) == sorted(found)
        for number, each in found.items():
            # two queens a turn: the one that was killed, and the one that looks
            assert (each.request, each.generation) == (task(number).request, 2 * (turn - number // NUMBERS) + 1)


if __name__ == "__main__":
    trio.run(victim, Path(sys.argv[1]), int(sys.argv[2]))
