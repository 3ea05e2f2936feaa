"""How many tasks a second the queen takes in, durably, and how long that and placement take meanwhile.

The queen has one core and all else the other. Tasks are handed in by an open loop: at times that are drawn beforehand,
whatever the queen does, and each is waited for from its time on, so that a stall is seen in all that came in it. Below
her a stand-in for llama-server, in the generator's own process, since a real one would take what is measured; placement
is what it sees: from the end of an answer to the arrival of the next request, while others wait.
"""

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from tests.bench.figures import cores, on_core, spread
from tests.bench.queen import Queen, pool, queen
from tests.bench.stand_in import StandIn, stand_in
from tests.bench.wire import Answer, Wire, encoded

RATE = 1000
SECONDS = 20.0
LIMIT_MS = 100.0
CONNECTIONS = 32
CLIENTS = 64
TASKS = 8000
"""In a closed loop: fewer than the queue holds, so that nothing is dropped or refused."""
CAPACITY = "10000"
SLOTS, TOKENS, INTERVAL_S = 4, 8, 0.0125
"""Of the engine: 40 answers a second."""
TRICKLE_S = 4.0
PROMPT = "Answer in one sentence. " * 20
REQUEST = encoded("POST", "/v2/tasks", {"prompt": PROMPT, "max_tokens": TOKENS, "priority": "batch"})


@dataclass
class Taken:
    """How long the answers took, in seconds, by status; and the CPU time of the queen and of this process meanwhile."""

    took: dict[int, list[float]] = field(default_factory=dict)
    wall_s: float = 0.0
    queen_s: float = 0.0
    own_s: float = 0.0

    def add(self, answer: Answer, seconds: float) -> None:
        """One more."""
        self.took.setdefault(answer.status, []).append(seconds)

    @property
    def count(self) -> int:
        """All answers."""
        return sum(map(len, self.took.values()))

    def tell(self) -> None:
        """Print rate, cost and times."""
        shares = (
            f"queen {self.queen_s / self.wall_s:.0%} of her core, generator and engine {self.own_s / self.wall_s:.0%}"
        )
        print(f"  {self.count / self.wall_s:.0f} answers a second; {shares}")
        for status, took in sorted(self.took.items()):
            print(f"  {len(took)} answers {status}: {spread(took)}")


@asynccontextmanager
async def measured(running: Queen) -> AsyncIterator[Taken]:
    """What happens in the block, and what it costs."""
    taken, before, own, begun = Taken(), running.cost, time.process_time(), time.monotonic()
    yield taken
    taken.wall_s = time.monotonic() - begun
    taken.queen_s, taken.own_s = running.cost.cpu_s - before.cpu_s, time.process_time() - own


def schedule(rate: float, seconds: float, seed: int = 1) -> Iterator[float]:
    """Times in seconds, as those of clients who know nothing of one another: `rate` a second on average."""
    draw = random.Random(seed)
    due = draw.expovariate(rate)
    while due < seconds:
        yield due
        due += draw.expovariate(rate)


async def open_loop(running: Queen, rate: float, seconds: float) -> Taken:
    """Hand in at the times of a schedule, over connections that are kept."""
    times = schedule(rate, seconds)
    async with measured(running) as taken, trio.open_nursery() as nursery:
        begun = trio.current_time()
        for _connection in range(CONNECTIONS):
            nursery.start_soon(_in_time, running.port, times, begun, taken)
    return taken


async def _in_time(port: int, times: Iterator[float], begun: float, taken: Taken) -> None:
    with await Wire.open(port) as wire:
        for due in times:
            await trio.sleep_until(begun + due)
            taken.add(await wire.ask(REQUEST), trio.current_time() - begun - due)


async def closed_loop(running: Queen, *, kept: bool) -> Taken:
    """CLIENTS hand in TASKS, each the next one when it has the answer to the last, over one connection or many."""
    turns = iter(range(TASKS))
    async with measured(running) as taken, trio.open_nursery() as nursery:
        for _client in range(CLIENTS):
            nursery.start_soon(_one_by_one if kept else _connecting, running.port, turns, taken)
    return taken


async def _one_by_one(port: int, turns: Iterator[int], taken: Taken) -> None:
    with await Wire.open(port) as wire:
        for _turn in turns:
            begun = trio.current_time()
            taken.add(await wire.ask(REQUEST), trio.current_time() - begun)


async def _connecting(port: int, turns: Iterator[int], taken: Taken) -> None:
    for _turn in turns:
        begun = trio.current_time()
        with await Wire.open(port) as wire:
            taken.add(await wire.ask(REQUEST), trio.current_time() - begun)


async def at_rate(running: Queen, engine: StandIn, *, policy: str) -> None:
    """Print what becomes of RATE tasks a second, and what one costs."""
    await open_loop(running, RATE / 10, 1.0)
    engine.turnover.forget()
    taken = await open_loop(running, RATE, SECONDS)
    placed = list(engine.turnover.waits)
    async with measured(running) as idle:
        await trio.sleep(TRICKLE_S)
    print(f"admission, {policy}: {RATE} tasks/s offered for {SECONDS:g} s over {CONNECTIONS} connections")
    taken.tell()
    print(f"  {len(placed)} placed: {spread(placed)}; wanted of both: p99 below {LIMIT_MS:g} ms")
    share = idle.queen_s / idle.wall_s
    each_ms = 1000 * (taken.queen_s - share * taken.wall_s) / taken.count
    print(f"  {each_ms:.2f} ms of the queen's CPU an admission, without the {share:.0%} for the tasks that run")


async def at_most(running: Queen, _engine: StandIn, *, kept: bool) -> None:
    """Print what clients get who wait for nothing but their answers."""
    taken = await closed_loop(running, kept=kept)
    way = "one connection each" if kept else "a connection a task"
    print(f"admission, at most: {CLIENTS} clients in a closed loop, {way}")
    taken.tell()


async def _over(engine: StandIn, measure: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.serve)
        await measure()
        nursery.cancel_scope.cancel()


def _with_new_queen(measure: Callable[[Queen, StandIn], Awaitable[None]], policy: str) -> None:
    """Each begins with an empty queue."""
    engine = stand_in(INTERVAL_S)
    environ = {"ORCHD_ADMISSION_CAPACITY": CAPACITY, "ORCHD_ADMISSION_POLICY": policy}
    with queen(pool(engine.url, SLOTS), **environ) as running, on_core(cores()[1]):
        trio.run(_over, engine, partial(measure, running, engine))


def main() -> None:
    """Print all figures."""
    hers, ours = cores()
    print(f"admission: the queen on core {hers}, generator and stand-in engine on core {ours}")
    for policy in ("drop-lru", "reject-new"):
        _with_new_queen(partial(at_rate, policy=policy), policy)
    for kept in (True, False):
        _with_new_queen(partial(at_most, kept=kept), "drop-lru")


if __name__ == "__main__":
    main()
