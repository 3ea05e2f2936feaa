"""Overload of a real engine with four times the tasks that it can process, for a minute, half of them batch tasks.

Measures waiting times, refusals, and whether clients that retry at the given time are admitted. The throughput of the
engine is measured first, in the same run. Every refused client retries, so that a run takes about four times as long as
the overload. `--seconds` sets the duration of the overload.
"""

import argparse
import statistics
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import trio

from queen_rbee.dispatch.queue import Policy
from tests.bench.admission import schedule
from tests.bench.clients import Client, Ledger
from tests.bench.figures import cost, percentile
from tests.bench.first_token import FLAGS
from tests.engines.llama_server import llama_server_archive
from tests.engines.tiny_model import Shape, tiny_model
from tests.integration.home import Home, home

SECONDS = 60.0
TIMES = 4
MODEL = Shape(layers=4, embd=256)
"""About 15 tasks/s: enough to fill the queue within seconds, and slow enough to leave CPU time to queen-rbee."""
SLOTS = 4
CAPACITY = 64
TOKENS = 64
SATURATED_S = 6.0
POLICIES: tuple[Policy, ...] = ("reject-new", "drop-lru")
LIMIT_RATIO, LIMIT_SHARE = 0.1, 0.9
EVERY_S = 1.0
STEPS = 8
SETTLED_S = 10.0


async def throughput(port: int, numbers: "count[int]") -> tuple[float, int]:
    """Measure the throughput of the engine in tasks/s. Also return the number of tasks used for it."""
    ledger = Ledger(until=0.0)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _client in range(2 * SLOTS):
            nursery.start_soon(_submit_in_turn, port, ledger, numbers, begun + SATURATED_S)
    return ledger.accepted / (trio.current_time() - begun), ledger.accepted


async def _submit_in_turn(port: int, ledger: Ledger, numbers: "count[int]", until: float) -> None:
    while trio.current_time() < until:
        await Client(port, ledger, next(numbers), TOKENS, cancels=False).run()


async def overload(port: int, rate: float, seconds: float, numbers: "count[int]") -> Ledger:
    """Run `rate` new clients per second, and wait until each has been served or refused twice."""
    begun = trio.current_time()
    ledger = Ledger(until=begun + seconds)
    async with trio.open_nursery() as nursery:
        for due in schedule(rate, seconds):
            await trio.sleep_until(begun + due)
            nursery.start_soon(Client(port, ledger, next(numbers), TOKENS).run)
    return ledger


@asynccontextmanager
async def sampled_memory(pid: int) -> AsyncIterator[list[float]]:
    """Sample the resident memory of a process in MB every second for the duration of the block."""
    found: list[float] = []

    async def sample() -> None:
        while True:
            found.append(cost(pid).rss_mb)
            await trio.sleep(EVERY_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sample)
        yield found
        found.append(cost(pid).rss_mb)
        nursery.cancel_scope.cancel()


async def measure(running: Home, policy: Policy, seconds: float) -> None:
    """Measure one policy and print the results."""
    port, numbers = running.queen_port, count()
    rate, before = await throughput(port, numbers)
    print(f"overload, {policy}, {SLOTS} slots, capacity {CAPACITY}: {TIMES} x {rate:.1f} tasks/s for {seconds:g} s")
    begun = trio.current_time()
    async with sampled_memory(running.processes["queen-rbee"].pid) as rss:
        ledger = await overload(port, TIMES * rate, seconds, numbers)
    print(f"  all clients ended after {trio.current_time() - begun:.0f} s")
    print_waits(ledger)
    print_refusals(ledger)
    print_counts(ledger, running, before)
    print_memory(rss)


def print_waits(ledger: Ledger) -> None:
    """Print the time from submission to the first token, for tasks submitted during the overload."""
    medians = {}
    for priority, waits in sorted(ledger.waits.items()):
        medians[priority] = statistics.median(waits)
        p90 = percentile(waits, 0.9)
        print(f"  {priority}: {len(waits)} tasks waited {medians[priority]:.2f} s (median), {p90:.2f} s (p90)")
    if len(medians) == 2:
        ratio = medians["interactive"] / medians["batch"]
        print(f"  interactive tasks wait {ratio:.3f} times as long as batch tasks (limit {LIMIT_RATIO:g})")
    else:
        print("  interactive and batch cannot be compared: one of them never got a slot")


def print_refusals(ledger: Ledger) -> None:
    """Print the refusals, whether all had a time for a retry, and whether the retries were admitted."""
    delays = ledger.delays_s or [float("nan")]
    print(f"  refused {_counts(ledger.refused)}, dropped from the queue {_counts(ledger.dropped)}; ", end="")
    print(f"retry after {min(delays):.2f} to {max(delays):.1f} s; {len(ledger.without_delay)} without a time")
    for used in sorted({header for header, _status in ledger.retried}):
        answers = {status: number for (header, status), number in ledger.retried.items() if header == used}
        share = answers.get(202, 0) / sum(answers.values())
        print(f"  {sum(answers.values())} retries by {used}: {share:.3f} admitted (at least {LIMIT_SHARE:g})", end="")
        print(f"; responses {_counts(answers)}")
    if ledger.dropped_again:
        print(f"  {ledger.dropped_again} admitted retries were dropped again before they ran")


def print_counts(ledger: Ledger, running: Home, before: int) -> None:
    """Print whether every accepted task ended exactly once, and every slot is free again."""
    ended = sum(ledger.ended.values())
    enqueued = _total(running, "tasks_enqueued_total") - before
    left = {state: running.ask("GET", f"/v2/tasks?state={state}")[1]["count"] for state in ("queued", "running")}
    print(f"  accepted {ledger.accepted}, according to queen-rbee {enqueued:.0f}; ended once {ended}", end="")
    print(f" ({_counts(ledger.ended)}); remaining: {_counts(left)}")
    pool = _settled(running)
    _status, slots = running.ask("GET", "/slots", port=int(pool["replicas"][0]["url"].rpartition(":")[2]))
    free = sum(not slot["is_processing"] for slot in slots)
    print(f"  free slots according to the engine {free} of {len(slots)}, to queen-rbee ", end="")
    print(f"{pool['slots_free']} of {pool['slots_total']}")


def _settled(running: Home) -> dict[str, Any]:
    """Return the pool once queen-rbee reports that its slots are free, or after SETTLED_S."""
    with suppress(AssertionError):
        running.until(lambda: running.pool()["slots_free"] == SLOTS, SETTLED_S)
    return running.pool()


def print_memory(rss: list[float]) -> None:
    """Print the memory of queen-rbee at equal intervals."""
    steps = [rss[round(step * (len(rss) - 1) / STEPS)] for step in range(STEPS + 1)]
    print(f"  RSS of queen-rbee at {STEPS} intervals: {', '.join(f'{mb:.1f}' for mb in steps)}; max {max(rss):.1f} MB")


def _counts(found: Mapping[Any, int]) -> str:
    return ", ".join(f"{number} x {name}" for name, number in sorted(found.items())) or "0"


def _total(running: Home, name: str) -> float:
    with urllib.request.urlopen(f"{running.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def main(seconds: float = SECONDS, policies: tuple[Policy, ...] = POLICIES) -> None:
    """Run the benchmark for all policies, each with a new queen-rbee and engine."""
    for policy in policies:
        with tempfile.TemporaryDirectory() as name, _overloadable(Path(name), policy) as running:
            trio.run(measure, running, policy, seconds)


def _overloadable(directory: Path, policy: Policy) -> AbstractContextManager[Home]:
    return home(
        directory,
        llama_server_archive(),
        tiny_model(MODEL),
        slots=SLOTS,
        flags=FLAGS,
        ORCHD_ADMISSION_CAPACITY=str(CAPACITY),
        ORCHD_ADMISSION_POLICY=policy,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of the overload")
    parser.add_argument("--policy", choices=POLICIES, help="measure only this policy")
    options = parser.parse_args()
    main(options.seconds, (options.policy,) if options.policy else POLICIES)
