"""Load of a fleet on queen-rbee: 10, 100 and 1000 nodes with eight pools each send heartbeats while tasks arrive.

queen-rbee has one core; load generator, nodes and engine have the other. The first part has only heartbeats; in the
second, RATE tasks/s are submitted in an open loop. The latency of placement is the time from submission to the arrival
at the node, which is often before the 202; queen-rbee's share of it is `orchd_dispatch_latency_ms`. `--nodes` and
`--seconds` set the numbers of nodes and the duration of each part.
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

from tests.bench.admission import LoadResults, measured, schedule
from tests.bench.figures import cores, on_core, spread
from tests.bench.nodes import INTERVAL_MS, POOLS, SLOTS, Node, NodeObservations, models
from tests.bench.queen import Queen, cloud_queen
from tests.bench.relays import relays
from tests.bench.wire import Wire, encoded

NODES = (10, 100, 1000)
RATE = 100
SECONDS = 30.0
CONNECTIONS = 16
REGISTERING = 32
"""Number of nodes that register concurrently."""
SETTLED_S = 30.0
OPEN_FILES = 16_384
"""More than the number of connections of queen-rbee and the nodes. The limit of the unit is higher."""


@dataclass
class SubmittedTasks:
    """Submitted and accepted tasks, with the time when each was due on trio's clock."""

    token: str
    results: LoadResults
    numbers: "count[int]" = field(default_factory=count)
    due: dict[int, float] = field(default_factory=dict)

    async def submit_at(self, port: int, times: Iterator[float], begun: float) -> None:
        """Submit tasks at `times` over one connection."""
        with await Wire.open(port) as wire:
            for due in times:
                await trio.sleep_until(begun + due)
                number = next(self.numbers)
                answer = await wire.ask(self._task(number))
                self.results.add(answer, trio.current_time() - begun - due)
                if answer.status == 202:
                    self.due[number] = begun + due

    def _task(self, number: int) -> bytes:
        body = {"prompt": str(number), "max_tokens": 4, "model_ref": random.choice(models())}
        return encoded("POST", "/v2/tasks", body, {"Authorization": f"Bearer {self.token}"})


async def measure(running: Queen, nodes: int, seconds: float) -> None:
    """Measure with this number of nodes and print the results."""
    print(f"fleet: {nodes} nodes, {nodes * POOLS} pools, a heartbeat of each node every {INTERVAL_MS / 1000:g} s")
    observed = NodeObservations()
    serving = relays(observed)
    with serving.listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(serving.serve)
            await _register(running, nodes, serving.port, observed, nursery)
            await _measure_heartbeats(running, observed, seconds)
            await _measure_tasks(running, observed, seconds)
            nursery.cancel_scope.cancel()


async def _register(running: Queen, nodes: int, port: int, observed: NodeObservations, nursery: trio.Nursery) -> None:
    limiter, begun = trio.CapacityLimiter(REGISTERING), trio.current_time()
    async with trio.open_nursery() as starting:
        for number in range(nodes):
            node = Node(number, port, running.port, running.token or "", observed)
            starting.start_soon(nursery.start, node.live, limiter)
    status, found = await trio.to_thread.run_sync(running.ask, "GET", "/v2/nodes")
    known = found["count"] if status == 200 else f"status {status}"
    print(f"  registered in {trio.current_time() - begun:.2f} s, {REGISTERING} at once; known: {known}")


async def _measure_heartbeats(running: Queen, observed: NodeObservations, seconds: float) -> None:
    observed.reset()
    async with measured(running) as idle:
        await trio.sleep(seconds)
    print_part("heartbeats only", running, observed, idle)


async def _measure_tasks(running: Queen, observed: NodeObservations, seconds: float) -> None:
    observed.reset()
    before = await trio.to_thread.run_sync(queen_metrics, running)
    times = schedule(RATE, seconds)
    async with measured(running) as results:
        submitted, begun = SubmittedTasks(running.token or "", results), trio.current_time()
        async with trio.open_nursery() as nursery:
            for _connection in range(CONNECTIONS):
                nursery.start_soon(submitted.submit_at, running.port, times, begun)
    print_part(f"with {RATE} tasks/s", running, observed, results)
    for status, took in sorted(results.took.items()):
        print(f"    {len(took)} tasks answered {status}: {spread(took)}")
    after = await trio.to_thread.run_sync(_settled, running, before, len(submitted.due))
    print_placement(submitted, observed, before, after)


def print_part(what: str, running: Queen, observed: NodeObservations, results: LoadResults) -> None:
    """Print heartbeats and resource usage of one part."""
    shares = f"queen-rbee {results.queen_s / results.wall_s:.1%} of its core, {running.cost.rss_mb:.1f} MB resident"
    print(f"  {what}: {shares}; nodes, engine and generator {results.own_s / results.wall_s:.1%} of theirs")
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(observed.statuses.items()))
    print(
        f"    heartbeats {statuses or 'none'}: {spread(observed.beats)}; {observed.reconnected} connections were lost"
    )


@dataclass(frozen=True)
class QueenMetrics:
    """Metrics of queen-rbee: ended tasks by outcome, and waiting times for a slot."""

    ended: dict[str, float]
    waits: float
    waits_ms: float


def queen_metrics(running: Queen) -> QueenMetrics:
    """Read the current metrics."""
    _status, text = running.ask("GET", "/metrics")
    ended: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("orchd_tasks_dispatched_total{"):
            outcome = name.partition('outcome="')[2].partition('"')[0]
            ended[outcome] = ended.get(outcome, 0.0) + float(value)
    return QueenMetrics(
        ended, _sum(text, "orchd_dispatch_latency_ms_count"), _sum(text, "orchd_dispatch_latency_ms_sum")
    )


def _sum(text: str, name: str) -> float:
    lines = (line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _settled(running: Queen, before: QueenMetrics, tasks: int) -> QueenMetrics:
    """Wait until all tasks have ended, or for SETTLED_S, and return the metrics."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        now = queen_metrics(running)
        if sum(now.ended.values()) >= sum(before.ended.values()) + tasks or time.monotonic() > deadline:
            return now
        time.sleep(0.2)


def print_placement(
    submitted: SubmittedTasks, observed: NodeObservations, before: QueenMetrics, after: QueenMetrics
) -> None:
    """Print arrivals, latencies and outcomes of the tasks."""
    arrivals = [observed.arrived[number] - due for number, due in submitted.due.items() if number in observed.arrived]
    print(f"    {len(arrivals)} of {len(submitted.due)} arrived at a node, since submission: {spread(arrivals)}")
    waits = after.waits - before.waits
    mean = (after.waits_ms - before.waits_ms) / waits if waits else float("nan")
    print(f"    orchd_dispatch_latency_ms: {mean:.2f} ms on average of {waits:.0f}")
    ended = {outcome: number - before.ended.get(outcome, 0.0) for outcome, number in after.ended.items()}
    print(f"    ended: {', '.join(f'{number:.0f} x {outcome}' for outcome, number in sorted(ended.items())) or 'none'}")


def main(nodes: tuple[int, ...] = NODES, seconds: float = SECONDS) -> None:
    """Run the benchmark for each number of nodes, each with a new queen-rbee."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, limit), limit))
    queen_core, other_core = cores()
    print(f"fleet: queen-rbee on core {queen_core}, the rest on core {other_core}; {SLOTS} slots per pool")
    for number in nodes:
        with cloud_queen(secrets.token_hex(16)) as running, on_core(other_core):
            trio.run(measure, running, number, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, help="numbers of nodes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of each part")
    options = parser.parse_args()
    main(tuple(options.nodes), options.seconds)
