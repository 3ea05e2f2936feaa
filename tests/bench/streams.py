"""200 streams at once for a minute, and 20 more whose readers turn slow at half-time: is anything lost, who waits?

The queen has one core; a stand-in for llama-server, in a process of its own, and the readers share the other. What
fast readers see beside slow ones is compared with what the same ones saw before. `--seconds` sets how long that is.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from tests.bench.figures import Cost, cores, on_core, percentile
from tests.bench.queen import Queen, pool, queen
from tests.bench.readers import PAD, SIP_S, ChatReader, Half, Seen, TaskReader
from tests.bench.stand_in import apart

SECONDS = 60.0
FAST, SLOW = 200, 20
ALL = FAST + SLOW
TOKENS_S = 10
"""Of each stream: what engine and readers together can do on one core, with room to spare."""
CAPACITY = "1000"
"""Of the queue: more than all that come at once."""
SETTLED_S, EVERY_S = 5.0, 10.0
KINDS = {"/v2 events": TaskReader, "/v1 chat": ChatReader}


@dataclass(frozen=True)
class Moment:
    """How far things are at `at`, in seconds."""

    at: float
    cost: Cost
    told: int
    told_bytes: int


@dataclass
class Watch:
    """Turns from one half to the other and notes what the queen costs meanwhile."""

    running: Queen
    seen: Seen
    seconds: float

    def now(self) -> Moment:
        """What has been used and told so far."""
        return Moment(time.monotonic(), self.running.cost, self.seen.told, self.seen.told_bytes)

    async def halves(self, fast: trio.Event) -> list[tuple[Half, Moment, Moment]]:
        """Both of them, without slow readers and with; slow readers may catch up when the `fast` ones are through."""
        found = []
        await trio.sleep(SETTLED_S)
        for slow in (False, True):
            half, begun = Half(), self.now()
            self.seen.half, self.seen.slow = half, slow
            await trio.sleep(self.seconds / 2 - SETTLED_S)
            found.append((half, begun, self.now()))
        self.seen.half = None
        await fast.wait()
        self.seen.slow = False
        return found

    async def memory(self, into: list[Moment]) -> None:
        """A look each EVERY_S, for ever."""
        while True:
            await trio.sleep(EVERY_S)
            into.append(self.now())


async def measure(running: Queen, kind: str, seconds: float) -> None:
    """Print all figures of one way to read."""
    seen, begun = Seen(tokens=round(TOKENS_S * seconds)), time.monotonic()
    watch, fast, looks = Watch(running, seen, seconds), trio.Event(), list[Moment]()
    async with trio.open_nursery() as beside:
        beside.start_soon(watch.memory, looks)
        async with trio.open_nursery() as slow:
            for _reader in range(SLOW):
                slow.start_soon(KINDS[kind](running.port, seen, slow=True).follow)
            slow.start_soon(_followed, running.port, seen, kind, fast)
            halves = await watch.halves(fast)
            took = time.monotonic() - begun
        beside.cancel_scope.cancel()
    print(f"streams, {kind}: {FAST} and {SLOW} with readers that turn slow, {TOKENS_S} tokens/s each for {seconds:g} s")
    tell_whole(seen, took)
    tell_halves(halves)
    tell_memory(looks)


async def _followed(port: int, seen: Seen, kind: str, over: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        for _reader in range(FAST):
            nursery.start_soon(KINDS[kind](port, seen).follow)
    over.set()


def tell_whole(seen: Seen, took: float) -> None:
    """Whether anything is lost, doubled or out of order."""
    print(f"  whole and in order: {seen.whole} of {FAST}, slow ones {seen.whole_slow} of {SLOW}; ", end="")
    pace = seen.told / took
    print(f"{pace:.0f} tokens/s to fast readers, {pace / (FAST * TOKENS_S):.2f} of what the engine is to say")
    for problem in sorted(set(seen.problems))[:5]:
        print(f"  {problem}")


def tell_halves(halves: Sequence[tuple[Half, Moment, Moment]]) -> None:
    """What fast readers and the queen feel of slow ones."""
    (alone, *_), (beside, *_) = halves
    _tell("between two tokens", alone.gaps, beside.gaps)
    _tell("from the engine to the reader", alone.delays, beside.delays)
    costs = [
        1e6 * (after.cost.cpu_s - before.cost.cpu_s) / ((after.told - before.told) * ALL / FAST)
        for _half, before, after in halves
    ]
    shares = [(after.cost.cpu_s - before.cost.cpu_s) / (after.at - before.at) for _half, before, after in halves]
    print(f"  queen's CPU {costs[0]:.0f} us a token ({shares[0]:.0%} of her core), with slow ones ", end="")
    print(f"{costs[1] / costs[0]:.2f} times that")


def _tell(what: str, alone: Sequence[float], beside: Sequence[float]) -> None:
    words = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, after = percentile(alone, share), percentile(beside, share)
        words.append(f"{name} {1000 * before:.1f} ms, {after / before:.2f} times that beside {SLOW} slow ones")
    print(f"  {what}: {'; '.join(words)}")


def tell_memory(looks: Sequence[Moment]) -> None:
    """How the queen grows, beside what her logs hold: the answers of all tasks that run."""
    print(f"  queen's RSS each {EVERY_S:g} s: {', '.join(f'{look.cost.rss_mb:.1f}' for look in looks)} MB")
    if len(looks) < 3:
        return
    first, last = looks[0], looks[-1]
    told, grown_mb = last.told - first.told, last.cost.rss_mb - first.cost.rss_mb
    event = (last.told_bytes - first.told_bytes) / told + PAD * SLOW / ALL
    grown = 1e6 * grown_mb / (told * ALL / FAST)
    print(f"  grown since the first {grown_mb:.1f} MB: {grown:.0f} bytes a token, ", end="")
    print(f"{grown / event:.2f} of the {event:.0f} bytes that its event has on the wire")


def main(seconds: float = SECONDS) -> None:
    """Print the figures of both ways, each with a queen of its own. Slow readers take SIP_S bytes a second."""
    hers, ours = cores()
    print(f"streams: the queen on core {hers}, engine and readers on core {ours}; slow ones read {SIP_S} bytes/s")
    for kind in KINDS:
        with (
            apart(1 / TOKENS_S) as url,
            queen(pool(url, ALL), ORCHD_ADMISSION_CAPACITY=CAPACITY) as running,
            on_core(ours),
        ):
            trio.run(measure, running, kind, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each stream lasts")
    main(parser.parse_args().seconds)
