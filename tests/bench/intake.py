"""CPU of one admission alone, without HTTP: of a /v1 request, and of a /v2 task that is stored.

Times are CPU of the serving thread, so that other processes on the machine matter little. The lowest of several rounds
counts. Of /v2 tasks, CLIENTS are submitted at a time.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from queen_rbee.intake.intake import Intake
from queen_rbee.parts import TaskParts, build_task_parts
from queen_rbee.store.sqlite.store import SqliteStore, open_store
from queen_rbee.tasks.direct_answer import DirectAnswer
from queen_rbee.tasks.task import Task

ROUNDS, TASKS, CLIENTS = 9, 500, 64
CAPACITY = 10_000
CONTEXT, MAX_TOKENS = 8192, 64
PROMPT = "Answer in one sentence. " * 20
PASSAGE = Passage("chat", {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": MAX_TOKENS}, 540)


def _parts(store: SqliteStore) -> TaskParts:
    parts = build_task_parts(store, capacity=CAPACITY, policy="reject-new", strategy="least-loaded")
    replica = ReplicaStatus(replica_id="r0", url="http://127.0.0.1:1", ready=True, slots_total=4, slots_free=4)
    pool = PoolStatus(
        pool_id="default",
        state=PoolState.READY,
        live=True,
        ready=True,
        draining=False,
        engine="llamacpp",
        models_available=["tiny"],
        ctx_max=CONTEXT,
        replicas=[replica],
    )
    parts.registry.update("bench", 0, [pool])
    parts.registry.synced = True
    return parts


def _admitted(intake: Intake) -> Task:
    request = TaskRequest(max_tokens=MAX_TOKENS)
    return intake.admit(request, "bench", passage=PASSAGE, answer=DirectAnswer())


def _round_us(admit: Callable[[], Task], parts: TaskParts, *, alone: bool) -> float:
    """Return microseconds per admission; each task is cancelled before the next one if they are admitted `alone`."""
    spent, tasks = 0, []
    for _number in range(TASKS):
        begun = time.thread_time_ns()
        task = admit()
        spent += time.thread_time_ns() - begun
        tasks.append(task)
        if alone:
            parts.dispatcher.cancel(tasks.pop())
    for task in tasks:
        parts.dispatcher.cancel(task)
    return spent / TASKS / 1000


async def _stored_us(parts: TaskParts) -> tuple[float, float]:
    """Return microseconds per /v2 task of the serving thread, and of the writing thread."""
    turns, tasks = iter(range(TASKS)), []

    async def client() -> None:
        for _turn in turns:
            request = TaskRequest(prompt=PROMPT, max_tokens=MAX_TOKENS, priority="batch")
            tasks.append((await parts.intake.submit(request, "bench"))[0])

    serving, both = time.thread_time_ns(), time.process_time_ns()
    async with trio.open_nursery() as nursery:
        for _client in range(CLIENTS):
            nursery.start_soon(client)
    serving, both = time.thread_time_ns() - serving, time.process_time_ns() - both
    for task in tasks:
        parts.dispatcher.cancel(task)
    return serving / TASKS / 1000, (both - serving) / TASKS / 1000


async def measure(directory: Path) -> None:
    """Print all figures."""
    async with open_store(directory) as store:
        parts = _parts(store)
        for alone, name in ((True, "an empty queue"), (False, "a growing queue")):
            rounds = [_round_us(lambda: _admitted(parts.intake), parts, alone=alone) for _round in range(ROUNDS)]
            print(f"intake: /v1 into {name}: {min(rounds):.1f} us")
        stored = [await _stored_us(parts) for _round in range(ROUNDS)]
        serving, writing = min(stored)
        print(f"intake: /v2, stored, {CLIENTS} clients: {serving:.1f} us, and {writing:.1f} us of the writing thread")


def main() -> None:
    """Run all measurements."""
    with tempfile.TemporaryDirectory(prefix="intake-") as name:
        trio.run(measure, Path(name))


if __name__ == "__main__":
    main()
