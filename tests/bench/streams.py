"""200 concurrent streams for a minute, and 20 more whose readers become slow halfway: losses and delays.

queen-rbee has one core. A stand-in for llama-server, in its own process, and the readers share the other. The results
of fast readers beside slow ones are compared with their results before. `--seconds` sets the duration.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from tests.bench.figures import Cost, cores, on_core, percentile
from tests.bench.queen import Queen, pool, queen
from tests.bench.readers import PAD, SLOW_BYTES_S, ChatReader, Delays, StreamResults, TaskReader
from tests.bench.stand_in import stand_in_process

SECONDS = 60.0
FAST, SLOW = 200, 20
ALL = FAST + SLOW
TOKENS_S = 10
"""Rate of each stream: engine and readers need less than one core for it."""
CAPACITY = "1000"
"""Capacity of the queue: more than the number of streams."""
WARM_UP_S, EVERY_S = 5.0, 10.0
KINDS = {"/v2 events": TaskReader, "/v1 chat": ChatReader}


@dataclass(frozen=True)
class Sample:
    """Counters at the time `at`, in seconds."""

    at: float
    cost: Cost
    tokens_read: int
    bytes_read: int


@dataclass
class Sampler:
    """Switches between the halves and samples the resource usage of queen-rbee."""

    running: Queen
    results: StreamResults
    seconds: float

    def now(self) -> Sample:
        return Sample(time.monotonic(), self.running.cost, self.results.tokens_read, self.results.bytes_read)

    async def halves(self, fast: trio.Event) -> list[tuple[Delays, Sample, Sample]]:
        """Measure the halves without and with slow readers. Slow readers catch up after the `fast` ones have ended."""
        found = []
        await trio.sleep(WARM_UP_S)
        for slow in (False, True):
            half, begun = Delays(), self.now()
            self.results.delays_now, self.results.slow = half, slow
            await trio.sleep(self.seconds / 2 - WARM_UP_S)
            found.append((half, begun, self.now()))
        self.results.delays_now = None
        await fast.wait()
        self.results.slow = False
        return found

    async def memory(self, into: list[Sample]) -> None:
        """Append a sample every EVERY_S, forever."""
        while True:
            await trio.sleep(EVERY_S)
            into.append(self.now())


async def measure(running: Queen, kind: str, seconds: float) -> None:
    """Measure one kind of reader and print the results."""
    results, begun = StreamResults(tokens=round(TOKENS_S * seconds)), time.monotonic()
    watch, fast, samples = Sampler(running, results, seconds), trio.Event(), list[Sample]()
    async with trio.open_nursery() as beside:
        beside.start_soon(watch.memory, samples)
        async with trio.open_nursery() as slow:
            for _reader in range(SLOW):
                slow.start_soon(KINDS[kind](running.port, results, slow=True).follow)
            slow.start_soon(_follow_all, running.port, results, kind, fast)
            halves = await watch.halves(fast)
            took = time.monotonic() - begun
        beside.cancel_scope.cancel()
    print(f"streams, {kind}: {FAST}, and {SLOW} with slow readers, {TOKENS_S} tokens/s each for {seconds:g} s")
    print_losses(results, took)
    print_halves(halves)
    print_memory(samples)


async def _follow_all(port: int, results: StreamResults, kind: str, ended: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        for _reader in range(FAST):
            nursery.start_soon(KINDS[kind](port, results).follow)
    ended.set()


def print_losses(results: StreamResults, took: float) -> None:
    """Print whether tokens were lost, repeated or out of order."""
    print(f"  complete and in order: {results.complete} of {FAST}, slow {results.complete_slow} of {SLOW}; ", end="")
    pace = results.tokens_read / took
    print(f"{pace:.0f} tokens/s to fast readers, {pace / (FAST * TOKENS_S):.2f} of the engine's rate")
    for problem in sorted(set(results.problems))[:5]:
        print(f"  {problem}")


def print_halves(halves: Sequence[tuple[Delays, Sample, Sample]]) -> None:
    """Print the effect of slow readers on fast readers and on queen-rbee."""
    (alone, *_), (beside, *_) = halves
    _print_comparison("between two tokens", alone.gaps, beside.gaps)
    _print_comparison("from the engine to the reader", alone.delays, beside.delays)
    costs = [
        1e6 * (after.cost.cpu_s - before.cost.cpu_s) / ((after.tokens_read - before.tokens_read) * ALL / FAST)
        for _half, before, after in halves
    ]
    shares = [(after.cost.cpu_s - before.cost.cpu_s) / (after.at - before.at) for _half, before, after in halves]
    print(f"  queen-rbee: {costs[0]:.0f} us of CPU per token ({shares[0]:.0%} of its core), with slow readers ", end="")
    print(f"{costs[1] / costs[0]:.2f} times that")


def _print_comparison(what: str, alone: Sequence[float], beside: Sequence[float]) -> None:
    words = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, after = percentile(alone, share), percentile(beside, share)
        words.append(f"{name} {1000 * before:.1f} ms, {after / before:.2f} times that beside {SLOW} slow readers")
    print(f"  {what}: {'; '.join(words)}")


def print_memory(samples: Sequence[Sample]) -> None:
    """Print the memory growth of queen-rbee, and compare it with the size of the events in its logs."""
    print(f"  RSS of queen-rbee every {EVERY_S:g} s: {', '.join(f'{sample.cost.rss_mb:.1f}' for sample in samples)} MB")
    if len(samples) < 3:
        return
    first, last = samples[0], samples[-1]
    tokens_read, grown_mb = last.tokens_read - first.tokens_read, last.cost.rss_mb - first.cost.rss_mb
    event = (last.bytes_read - first.bytes_read) / tokens_read + PAD * SLOW / ALL
    grown = 1e6 * grown_mb / (tokens_read * ALL / FAST)
    print(f"  growth since the first sample {grown_mb:.1f} MB: {grown:.0f} bytes per token, ", end="")
    print(f"{grown / event:.2f} times the {event:.0f} bytes of its event on the wire")


def main(seconds: float = SECONDS) -> None:
    """Run the benchmark for each kind of reader, each with a new queen-rbee."""
    queen_core, other_core = cores()
    print(
        f"streams: queen-rbee on core {queen_core}, the rest on core {other_core}; slow readers: {SLOW_BYTES_S} bytes/s"
    )
    for kind in KINDS:
        with (
            stand_in_process(1 / TOKENS_S) as url,
            queen(pool(url, ALL), ORCHD_ADMISSION_CAPACITY=CAPACITY) as running,
            on_core(other_core),
        ):
            trio.run(measure, running, kind, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of each stream")
    main(parser.parse_args().seconds)
