"""What a fleet costs one queen: 10, 100 and 1000 nodes of eight pools each, that send heartbeats while tasks come.

The queen has one core; generator, nodes and the engine behind them have the other. First there is nothing but
heartbeats, then RATE tasks a second are handed in by an open loop. Placement is from handing in to the arrival of the
task at its node, which often comes before the 202; the queen's own part of it is her `orchd_dispatch_latency_ms`.
`--nodes` and `--seconds` set how many there are, and how long each of the two parts lasts.
"""

import argparse
import random
import resource
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import trio

from tests.bench.admission import Taken, measured, schedule
from tests.bench.figures import cores, on_core, spread
from tests.bench.nodes import INTERVAL_MS, POOLS, SLOTS, Node, Seen, models
from tests.bench.queen import Queen, cloud_queen
from tests.bench.relays import relays
from tests.bench.wire import Wire, encoded

NODES = (10, 100, 1000)
RATE = 100
SECONDS = 30.0
CONNECTIONS = 16
REGISTERING = 32
"""How many nodes register in one moment."""
SETTLED_S = 30.0
OPEN_FILES = 16_384
"""More than the queen and the nodes have connections; the unit's own limit is higher."""


@dataclass
class Handed:
    """The tasks that were handed in and answered with 202: when each was due, on trio's clock."""

    token: str
    taken: Taken
    numbers: "count[int]" = field(default_factory=count)
    due: dict[int, float] = field(default_factory=dict)

    async def in_time(self, port: int, times: Iterator[float], begun: float) -> None:
        """Hand in at `times`, over one connection."""
        with await Wire.open(port) as wire:
            for due in times:
                await trio.sleep_until(begun + due)
                number = next(self.numbers)
                answer = await wire.ask(self._task(number))
                self.taken.add(answer, trio.current_time() - begun - due)
                if answer.status == 202:
                    self.due[number] = begun + due

    def _task(self, number: int) -> bytes:
        body = {"prompt": str(number), "max_tokens": 4, "model_ref": random.choice(models())}
        return encoded("POST", "/v2/tasks", body, {"Authorization": f"Bearer {self.token}"})


async def measure(running: Queen, nodes: int, seconds: float) -> None:
    """Print all figures of so many nodes."""
    print(f"fleet: {nodes} nodes, {nodes * POOLS} pools, a heartbeat of each node every {INTERVAL_MS / 1000:g} s")
    seen = Seen()
    serving = relays(seen)
    with serving.listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(serving.serve)
            await _register(running, nodes, serving.port, seen, nursery)
            await _alone(running, seen, seconds)
            await _with_tasks(running, seen, seconds)
            nursery.cancel_scope.cancel()


async def _register(running: Queen, nodes: int, port: int, seen: Seen, nursery: trio.Nursery) -> None:
    limiter, begun = trio.CapacityLimiter(REGISTERING), trio.current_time()
    async with trio.open_nursery() as starting:
        for number in range(nodes):
            node = Node(number, port, running.port, running.token or "", seen)
            starting.start_soon(nursery.start, node.live, limiter)
    status, found = await trio.to_thread.run_sync(running.ask, "GET", "/v2/nodes")
    known = found["count"] if status == 200 else f"status {status}"
    print(f"  registered and heard in {trio.current_time() - begun:.2f} s, {REGISTERING} at once; known: {known}")


async def _alone(running: Queen, seen: Seen, seconds: float) -> None:
    seen.forget()
    async with measured(running) as idle:
        await trio.sleep(seconds)
    tell("heartbeats alone", running, seen, idle)


async def _with_tasks(running: Queen, seen: Seen, seconds: float) -> None:
    seen.forget()
    before = await trio.to_thread.run_sync(figures, running)
    times = schedule(RATE, seconds)
    async with measured(running) as taken:
        handed, begun = Handed(running.token or "", taken), trio.current_time()
        async with trio.open_nursery() as nursery:
            for _connection in range(CONNECTIONS):
                nursery.start_soon(handed.in_time, running.port, times, begun)
    tell(f"with {RATE} tasks a second", running, seen, taken)
    for status, took in sorted(taken.took.items()):
        print(f"    {len(took)} tasks answered {status}: {spread(took)}")
    after = await trio.to_thread.run_sync(_settled, running, before, len(handed.due))
    tell_placement(handed, seen, before, after)


def tell(what: str, running: Queen, seen: Seen, taken: Taken) -> None:
    """Heartbeats and cost of one part."""
    shares = f"queen {taken.queen_s / taken.wall_s:.1%} of her core, {running.cost.rss_mb:.1f} MB resident"
    print(f"  {what}: {shares}; nodes, engine and generator {taken.own_s / taken.wall_s:.1%} of theirs")
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(seen.statuses.items()))
    print(f"    heartbeats {statuses or 'none'}: {spread(seen.beats)}; {seen.reconnected} connections were lost")


@dataclass(frozen=True)
class Figures:
    """Of the queen's own counts: tasks that ended, by outcome, and waits for a slot."""

    ended: dict[str, float]
    waits: float
    waits_ms: float


def figures(running: Queen) -> Figures:
    """As she exports them now."""
    _status, text = running.ask("GET", "/metrics")
    ended: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("orchd_tasks_dispatched_total{"):
            outcome = name.partition('outcome="')[2].partition('"')[0]
            ended[outcome] = ended.get(outcome, 0.0) + float(value)
    return Figures(ended, _sum(text, "orchd_dispatch_latency_ms_count"), _sum(text, "orchd_dispatch_latency_ms_sum"))


def _sum(text: str, name: str) -> float:
    lines = (line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _settled(running: Queen, before: Figures, tasks: int) -> Figures:
    """When all tasks have ended, or as it is SETTLED_S later."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        now = figures(running)
        if sum(now.ended.values()) >= sum(before.ended.values()) + tasks or time.monotonic() > deadline:
            return now
        time.sleep(0.2)


def tell_placement(handed: Handed, seen: Seen, before: Figures, after: Figures) -> None:
    """Where the tasks went, and how soon."""
    came = [seen.arrived[number] - due for number, due in handed.due.items() if number in seen.arrived]
    print(f"    {len(came)} of {len(handed.due)} came to a node, from handing in: {spread(came)}")
    waits = after.waits - before.waits
    mean = (after.waits_ms - before.waits_ms) / waits if waits else float("nan")
    print(f"    orchd_dispatch_latency_ms: {mean:.2f} ms on average of {waits:.0f}")
    ended = {outcome: number - before.ended.get(outcome, 0.0) for outcome, number in after.ended.items()}
    print(f"    ended: {', '.join(f'{number:.0f} x {outcome}' for outcome, number in sorted(ended.items())) or 'none'}")


def main(nodes: tuple[int, ...] = NODES, seconds: float = SECONDS) -> None:
    """Print the figures of each number of nodes, each with a queen of its own."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, limit), limit))
    hers, ours = cores()
    print(f"fleet: the queen on core {hers}, all else on core {ours}; {SLOTS} slots a pool")
    for number in nodes:
        with cloud_queen(secrets.token_hex(16)) as running, on_core(ours):
            trio.run(measure, running, number, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, help="how many there are")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each part lasts")
    options = parser.parse_args()
    main(tuple(options.nodes), options.seconds)
