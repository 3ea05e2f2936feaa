"""500 streams at once through queen-rbee, and the same from the engine alone: losses, and the time between tokens.

`python -m tests.bench.many_streams`. queen-rbee has one core, the stand-in for llama-server and the readers share the
other. Both runs use the same engine and readers. The rate is one that two cores can carry.
"""

import argparse
from functools import partial

import trio

from tests.bench.figures import cores, on_core, percentile
from tests.bench.queen import pool, queen
from tests.bench.readers import ChatReader, Delays, StreamResults
from tests.bench.stand_in import stand_in_process

STREAMS, TOKENS_S, SECONDS = 500, 2.0, 15.0
WARM_UP_S = 5.0
"""Seconds until all streams have begun."""
LIMIT = 1.5
"""How many times the 99th percentile of the engine's own gaps those through queen-rbee may have."""


async def follow(port: int, streams: int, tokens: int) -> StreamResults:
    """Read all streams to their end; note the gaps after WARM_UP_S."""
    results = StreamResults(tokens=tokens)
    async with trio.open_nursery() as nursery:
        for _reader in range(streams):
            nursery.start_soon(ChatReader(port, results).follow)
        await trio.sleep(WARM_UP_S)
        results.delays_now = Delays()
    return results


def report(name: str, results: StreamResults, streams: int) -> float:
    """Print the losses and gaps of one run; return the 99th percentile of the gaps in seconds."""
    gaps = results.delays_now.gaps if results.delays_now else []
    p50, p99, longest = (percentile(gaps, share) for share in (0.5, 0.99, 1.0))
    print(f"  {name}: complete and in order: {results.complete} of {streams}; between two tokens ", end="")
    print(f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms, longest {1000 * longest:.1f} ms")
    for problem in sorted(set(results.problems))[:5]:
        print(f"    {problem}")
    return p99


def main(streams: int = STREAMS, tokens_s: float = TOKENS_S, seconds: float = SECONDS) -> None:
    """Run the benchmark."""
    queen_core, other_core = cores()
    tokens = round(tokens_s * seconds)
    print(
        f"many streams: {streams} at {tokens_s:g} tokens/s each ({streams * tokens_s:g} in all) for {seconds:g} s; ",
        end="",
    )
    print(f"queen-rbee on core {queen_core}, the rest on core {other_core}")
    with (
        stand_in_process(1 / tokens_s) as url,
        queen(pool(url, streams), ORCHD_ADMISSION_CAPACITY=str(2 * streams)) as running,
        on_core(other_core),
    ):
        run = partial(follow, streams=streams, tokens=tokens)
        alone = report("the engine alone", trio.run(run, int(url.rpartition(":")[2])), streams)
        before = running.cost.cpu_s
        results = trio.run(run, running.port)
        spent_us = 1e6 * (running.cost.cpu_s - before) / max(1, results.tokens_read)
        through = report("through queen-rbee", results, streams)
    print(f"  p99 {through / alone:.2f} times the engine's own (target: {LIMIT} at most); ", end="")
    print(f"{spent_us:.0f} us of CPU per token")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many_streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--tokens-s", type=float, default=TOKENS_S, help="rate of each stream")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of each stream")
    options = parser.parse_args()
    main(options.streams, options.tokens_s, options.seconds)
