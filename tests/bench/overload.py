"""Four times as many tasks as a real engine gets through, for a minute, half of them batch: who waits, who is refused,
and whether those who come back when they are told to get in.

What the engine gets through is measured first, in the same run. Every refused client comes back, so that a run lasts
until the last of them was told to: about four times as long as the overload. `--seconds` sets how long that is.
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
"""Some 15 tasks a second: enough to fill the queue within seconds, and little enough to leave the queen her share."""
SLOTS = 4
CAPACITY = 64
TOKENS = 64
SATURATED_S = 6.0
POLICIES: tuple[Policy, ...] = ("reject-new", "drop-lru")
LIMIT_RATIO, LIMIT_SHARE = 0.1, 0.9
EVERY_S = 1.0
STEPS = 8
SETTLED_S = 10.0


async def saturated(port: int, numbers: "count[int]") -> tuple[float, int]:
    """Tasks a second that the engine gets through, and how many tasks that took to find out."""
    ledger = Ledger(until=0.0)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _client in range(2 * SLOTS):
            nursery.start_soon(_one_by_one, port, ledger, numbers, begun + SATURATED_S)
    return ledger.accepted / (trio.current_time() - begun), ledger.accepted


async def _one_by_one(port: int, ledger: Ledger, numbers: "count[int]", until: float) -> None:
    while trio.current_time() < until:
        await Client(port, ledger, next(numbers), TOKENS, cancels=False).live()


async def overloaded(port: int, rate: float, seconds: float, numbers: "count[int]") -> Ledger:
    """What becomes of `rate` newcomers a second, until the last client has what it came for or was refused twice."""
    begun = trio.current_time()
    ledger = Ledger(until=begun + seconds)
    async with trio.open_nursery() as nursery:
        for due in schedule(rate, seconds):
            await trio.sleep_until(begun + due)
            nursery.start_soon(Client(port, ledger, next(numbers), TOKENS).live)
    return ledger


@asynccontextmanager
async def sampled(pid: int) -> AsyncIterator[list[float]]:
    """The resident memory of a process in MB, each second while the block lasts."""
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
    """Print all figures of one policy."""
    port, numbers = running.queen_port, count()
    rate, before = await saturated(port, numbers)
    print(f"overload, {policy}, {SLOTS} slots, room for {CAPACITY}: {TIMES} x {rate:.1f} tasks/s for {seconds:g} s")
    begun = trio.current_time()
    async with sampled(running.processes["queen-rbee"].pid) as rss:
        ledger = await overloaded(port, TIMES * rate, seconds, numbers)
    print(f"  all is over after {trio.current_time() - begun:.0f} s")
    tell_waits(ledger)
    tell_refusals(ledger)
    tell_counts(ledger, running, before)
    tell_memory(rss)


def tell_waits(ledger: Ledger) -> None:
    """From handing in to the first token, of those that were handed in during the overload."""
    medians = {}
    for priority, waits in sorted(ledger.waits.items()):
        medians[priority] = statistics.median(waits)
        p90 = percentile(waits, 0.9)
        print(f"  {priority}: {len(waits)} waited {medians[priority]:.2f} s (median), {p90:.2f} s (9 of 10 at most)")
    if len(medians) == 2:
        ratio = medians["interactive"] / medians["batch"]
        print(f"  interactive waits {ratio:.3f} of what batch does (wanted: at most {LIMIT_RATIO:g})")
    else:
        print("  interactive beside batch: nothing to compare, one of them never got a slot")


def tell_refusals(ledger: Ledger) -> None:
    """How many, whether all were told when to come back, and whether those that did got in."""
    told = ledger.told_s or [float("nan")]
    print(f"  refused {_counts(ledger.refused)}, dropped while they waited {_counts(ledger.dropped)}; ", end="")
    print(f"told to come back in {min(told):.2f} to {max(told):.1f} s, {len(ledger.untold)} not told")
    for obeyed in sorted({obeyed for obeyed, _status in ledger.came_back}):
        answers = {status: number for (what, status), number in ledger.came_back.items() if what == obeyed}
        share = answers.get(202, 0) / sum(answers.values())
        print(
            f"  {sum(answers.values())} obeyed {obeyed}: {share:.3f} got in (wanted: at least {LIMIT_SHARE:g})", end=""
        )
        print(f"; answers {_counts(answers)}")
    if ledger.dropped_again:
        print(f"  of those that got in so, {ledger.dropped_again} were dropped again before their turn")


def tell_counts(ledger: Ledger, running: Home, before: int) -> None:
    """Whether every accepted task has ended just once, and every slot is free again."""
    ended = sum(ledger.ended.values())
    enqueued = _total(running, "tasks_enqueued_total") - before
    left = {state: running.ask("GET", f"/v2/tasks?state={state}")[1]["count"] for state in ("queued", "running")}
    print(f"  accepted {ledger.accepted}, by the queen's own count {enqueued:.0f}; ended once each {ended}", end="")
    print(f" ({_counts(ledger.ended)}); still there: {_counts(left)}")
    pool = _settled(running)
    _status, slots = running.ask("GET", "/slots", port=int(pool["replicas"][0]["url"].rpartition(":")[2]))
    free = sum(not slot["is_processing"] for slot in slots)
    print(f"  slots free at the engine {free} of {len(slots)}, at the queen ", end="")
    print(f"{pool['slots_free']} of {pool['slots_total']}")


def _settled(running: Home) -> dict[str, Any]:
    """The pool when the queen has heard that its slots are free, or as it is SETTLED_S later."""
    with suppress(AssertionError):
        running.until(lambda: running.pool()["slots_free"] == SLOTS, SETTLED_S)
    return running.pool()


def tell_memory(rss: list[float]) -> None:
    """The queen's, in equal steps from the first moment to the last."""
    steps = [rss[round(step * (len(rss) - 1) / STEPS)] for step in range(STEPS + 1)]
    print(f"  queen's RSS in {STEPS} equal steps: {', '.join(f'{mb:.1f}' for mb in steps)}; {max(rss):.1f} MB at most")


def _counts(found: Mapping[Any, int]) -> str:
    return ", ".join(f"{number} x {name}" for name, number in sorted(found.items())) or "0"


def _total(running: Home, name: str) -> float:
    with urllib.request.urlopen(f"{running.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def main(seconds: float = SECONDS, policies: tuple[Policy, ...] = POLICIES) -> None:
    """Print the figures of all policies, each with a queen and an engine of its own."""
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
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the overload lasts")
    parser.add_argument("--policy", choices=POLICIES, help="of this policy alone")
    options = parser.parse_args()
    main(options.seconds, (options.policy,) if options.policy else POLICIES)
