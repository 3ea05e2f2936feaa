"""Rate of durable admissions of queen-rbee, and the latency of admission and placement meanwhile.

queen-rbee has one core, everything else has the other. Tasks are submitted in an open loop, at times that are drawn in
advance. Latency is measured from these times, so that a stall affects all tasks that are due during it. The engine is a
stand-in for llama-server in the process of the load generator, because a real one would use the CPU that is measured.
The latency of placement is the time from the end of an answer to the arrival of the next request, while tasks wait.
"""

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from tests.bench.figures import cores, on_core, spread, thread_cpu
from tests.bench.queen import Queen, pool, queen
from tests.bench.stand_in import StandIn, stand_in
from tests.bench.wire import Answer, Wire, encoded

RATE = 1000
SECONDS = 20.0
LIMIT_MS = 100.0
CONNECTIONS = 32
CLIENTS = 64
TASKS = 8000
"""Number of tasks in a closed loop: less than the capacity of the queue, so that none is dropped or refused."""
CAPACITY = "10000"
SLOTS, TOKENS, INTERVAL_S = 4, 8, 0.0125
"""The engine produces 40 answers per second."""
IDLE_S = 4.0
PROMPT = "Answer in one sentence. " * 20
REQUEST = encoded("POST", "/v2/tasks", {"prompt": PROMPT, "max_tokens": TOKENS, "priority": "batch"})


@dataclass
class LoadResults:
    """Response times in seconds, by status, and the CPU time of queen-rbee and of this process."""

    took: dict[int, list[float]] = field(default_factory=dict)
    wall_s: float = 0.0
    queen_s: float = 0.0
    serving_s: float = 0.0
    """Of `queen_s`, the time of the serving thread; the rest is that of the threads that write to the disk."""
    own_s: float = 0.0

    def add(self, answer: Answer, seconds: float) -> None:
        self.took.setdefault(answer.status, []).append(seconds)

    @property
    def count(self) -> int:
        """Number of responses."""
        return sum(map(len, self.took.values()))

    def print_results(self) -> None:
        """Print rate, CPU usage and response times."""
        shares = f"queen-rbee {self.queen_s / self.wall_s:.0%} of its core, the rest {self.own_s / self.wall_s:.0%}"
        print(f"  {self.count / self.wall_s:.0f} responses/s; {shares}")
        serving_us, writing_us = (1e6 * each / self.count for each in (self.serving_s, self.queen_s - self.serving_s))
        print(f"  CPU of queen-rbee per response, with that of running tasks: {serving_us:.0f} us ", end="")
        print(f"of the serving thread, {writing_us:.0f} us of others")
        for status, took in sorted(self.took.items()):
            print(f"  {len(took)} responses {status}: {spread(took)}")


@asynccontextmanager
async def measured(running: Queen) -> AsyncIterator[LoadResults]:
    """Measure elapsed and CPU time of the block."""
    pid, results = running.process.pid, LoadResults()
    before, serving, own, begun = running.cost, thread_cpu(pid)[pid], time.process_time(), time.monotonic()
    yield results
    results.wall_s = time.monotonic() - begun
    results.queen_s, results.own_s = running.cost.cpu_s - before.cpu_s, time.process_time() - own
    results.serving_s = thread_cpu(pid)[pid] - serving


def schedule(rate: float, seconds: float, seed: int = 1) -> Iterator[float]:
    """Yield the times of a Poisson process in seconds, with `rate` events per second."""
    draw = random.Random(seed)
    due = draw.expovariate(rate)
    while due < seconds:
        yield due
        due += draw.expovariate(rate)


async def open_loop(running: Queen, rate: float, seconds: float) -> LoadResults:
    """Submit tasks at the times of a schedule over persistent connections."""
    times = schedule(rate, seconds)
    async with measured(running) as results, trio.open_nursery() as nursery:
        begun = trio.current_time()
        for _connection in range(CONNECTIONS):
            nursery.start_soon(_submit_at, running.port, times, begun, results)
    return results


async def _submit_at(port: int, times: Iterator[float], begun: float, results: LoadResults) -> None:
    with await Wire.open(port) as wire:
        for due in times:
            await trio.sleep_until(begun + due)
            results.add(await wire.ask(REQUEST), trio.current_time() - begun - due)


async def closed_loop(running: Queen, *, persistent: bool) -> LoadResults:
    """Submit TASKS from CLIENTS, each waiting for the response before its next task.

    A client uses one connection, or a new one for each task if `persistent` is false.
    """
    turns = iter(range(TASKS))
    async with measured(running) as results, trio.open_nursery() as nursery:
        for _client in range(CLIENTS):
            nursery.start_soon(
                _submit_over_one_connection if persistent else _submit_over_new_connections,
                running.port,
                turns,
                results,
            )
    return results


async def _submit_over_one_connection(port: int, turns: Iterator[int], results: LoadResults) -> None:
    with await Wire.open(port) as wire:
        for _turn in turns:
            begun = trio.current_time()
            results.add(await wire.ask(REQUEST), trio.current_time() - begun)


async def _submit_over_new_connections(port: int, turns: Iterator[int], results: LoadResults) -> None:
    for _turn in turns:
        begun = trio.current_time()
        with await Wire.open(port) as wire:
            results.add(await wire.ask(REQUEST), trio.current_time() - begun)


async def at_fixed_rate(running: Queen, engine: StandIn, *, policy: str) -> None:
    """Measure admission and placement at RATE tasks/s, and print the results."""
    await open_loop(running, RATE / 10, 1.0)
    engine.idle_times.reset()
    results = await open_loop(running, RATE, SECONDS)
    placed = list(engine.idle_times.waits)
    async with measured(running) as idle:
        await trio.sleep(IDLE_S)
    print(f"admission, {policy}: {RATE} tasks/s offered for {SECONDS:g} s over {CONNECTIONS} connections")
    results.print_results()
    print(f"  {len(placed)} placed: {spread(placed)}; limit of both: p99 below {LIMIT_MS:g} ms")
    share = idle.queen_s / idle.wall_s
    each_ms = 1000 * (results.queen_s - share * results.wall_s) / results.count
    print(f"  {each_ms:.2f} ms of CPU per admission in queen-rbee, without the {share:.0%} for running tasks")


async def at_maximum_rate(running: Queen, _engine: StandIn, *, persistent: bool) -> None:
    """Measure the maximum rate in a closed loop, and print the results."""
    results = await closed_loop(running, persistent=persistent)
    connections = "one connection for each client" if persistent else "one connection for each task"
    print(f"admission, maximum: {CLIENTS} clients in a closed loop, {connections}")
    results.print_results()


async def _with_engine(engine: StandIn, measure: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.serve)
        await measure()
        nursery.cancel_scope.cancel()


def _with_new_queen(measure: Callable[[Queen, StandIn], Awaitable[None]], policy: str) -> None:
    """Run a measurement with a new queen-rbee, whose queue is empty."""
    engine = stand_in(INTERVAL_S)
    environ = {"ORCHD_ADMISSION_CAPACITY": CAPACITY, "ORCHD_ADMISSION_POLICY": policy}
    with queen(pool(engine.url, SLOTS), **environ) as running, on_core(cores()[1]):
        trio.run(_with_engine, engine, partial(measure, running, engine))


def main() -> None:
    """Run all measurements."""
    queen_core, other_core = cores()
    print(f"admission: queen-rbee on core {queen_core}, generator and engine on core {other_core}")
    for policy in ("drop-lru", "reject-new"):
        _with_new_queen(partial(at_fixed_rate, policy=policy), policy)
    for persistent in (True, False):
        _with_new_queen(partial(at_maximum_rate, persistent=persistent), "drop-lru")


if __name__ == "__main__":
    main()
