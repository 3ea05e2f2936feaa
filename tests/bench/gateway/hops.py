"""Two hops against one: queen-rbee with a pool-managerd between it and the engine, and queen-rbee alone.

`python -m tests.bench.gateway.hops`. The same clients, engine and cores; the daemons share one core. CPU is that of
each daemon, per request of 16 tokens that the engine sends at once, streamed and whole, and per token of 32 paced
streams. The two cases take turns, so that a change of the machine's load affects both.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.figures import cores, cost, on_core
from tests.bench.gateway.engine import PACED, engine
from tests.bench.gateway.gateways import SLOTS
from tests.bench.gateway.load import PACED_CHAT, STREAMED, WHOLE, Answers, ask
from tests.bench.queen import Queen, cloud_queen, pool, queen
from tests.integration.pool_manager import pool_manager

TOKEN = "a-token-for-benchmarks"
CLIENTS = 16
STREAMS, STREAMS_EACH = 32, 4
SECONDS, ROUNDS = 3.0, 3
LIMIT = 1.7
"""How many times the CPU of one hop two may cost."""
ENVIRON = {"ORCHD_ADMISSION_CAPACITY": "1000", "RUST_LOG": "info"}


@dataclass(frozen=True)
class Case:
    """Running daemons by their names, and the port of queen-rbee."""

    port: int
    pids: Mapping[str, int]
    cpu_us: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Microseconds by load and daemon, a figure a round."""
    problems: list[str] = field(default_factory=list)

    def measure(self, load: str, seconds: float) -> None:
        """Put one load on the daemons and note what each of them needed for it."""
        before = {name: cost(pid).cpu_s for name, pid in self.pids.items()}
        answers = _put(self.port, load, seconds)
        number = max(1, len(answers.took_s) * (PACED if load == "token" else 1))
        for name, pid in self.pids.items():
            self.cpu_us.setdefault((load, name), []).append(1e6 * (cost(pid).cpu_s - before[name]) / number)
        self.problems.extend(answers.problems)

    def median_us(self, load: str, name: str) -> float:
        return statistics.median(self.cpu_us[load, name])

    def total_us(self, load: str) -> float:
        """The CPU of all daemons."""
        return sum(self.median_us(load, name) for name in self.pids)


LOADS = ("streamed", "whole", "token")


def _put(port: int, load: str, seconds: float) -> Answers:
    if load == "token":
        return ask(port, PACED_CHAT, STREAMS, requests=STREAMS * STREAMS_EACH)
    return ask(port, {"streamed": STREAMED, "whole": WHOLE}[load], CLIENTS, seconds=seconds)


@contextmanager
def one_hop(url: str) -> Iterator[Case]:
    """queen-rbee in HOME_PROFILE, which reaches the engine directly."""
    with queen(pool(url, SLOTS), **ENVIRON) as running:
        yield Case(running.port, {"queen-rbee": running.process.pid})


@contextmanager
def two_hops(url: str) -> Iterator[Case]:
    """queen-rbee in CLOUD_PROFILE and pool-managerd, both on the first core."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-node-") as directory,
        cloud_queen(TOKEN, AUTH_OPTIONAL="true", **ENVIRON) as running,
        pool_manager(
            Path(directory),
            ORCHESTRATORD_CLOUD_PROFILE="true",
            ORCHESTRATORD_URL=f"http://127.0.0.1:{running.port}",
            POOL_MANAGERD_NODE_ID="bench-node",
            LLORCH_API_TOKEN=TOKEN,
            AUTH_OPTIONAL="true",
            RUST_LOG="info",
        ) as manager,
    ):
        [process] = manager.processes
        os.sched_setaffinity(process.pid, {cores()[0]})
        model = {"id": "tiny", "path": "/tiny.gguf", "ctx_max": 1 << 20}
        manager.announce(url, slots_total=SLOTS, slots_free=SLOTS, model=model)
        manager.until(lambda: _ready(running))
        yield Case(running.port, {"queen-rbee": running.process.pid, "pool-managerd": process.pid})


def _ready(running: Queen) -> bool:
    status, found = running.ask("GET", "/v2/pools")
    return status == 200 and any(each["ready"] for each in found["pools"])


def compare(seconds: float, rounds: int) -> int:
    """Measure both cases in turns and print the ratios; return 1 if an answer was wrong."""
    relay_core, other_core = cores()
    print(f"hops: daemons on core {relay_core}, engine and clients on core {other_core}; median of {rounds} rounds")
    with engine(other_core) as url, one_hop(url) as one, two_hops(url) as two, on_core(other_core):
        for case in (one, two):
            _put(case.port, "streamed", 1.0)
        for _round in range(rounds):
            for load in LOADS:
                for case in (one, two):
                    case.measure(load, seconds)
        for load in LOADS:
            ratio = two.total_us(load) / max(1.0, one.total_us(load))
            each = " + ".join(f"{name} {two.median_us(load, name):.0f}" for name in two.pids)
            print(f"  CPU per {load:8} one hop {one.total_us(load):5.0f} us, two {each} us: ", end="")
            print(f"{ratio:.2f} times one (target: {LIMIT} at most)")
    for problem in [*one.problems[:3], *two.problems[:3]]:
        print(f"wrong answer: {problem}", file=sys.stderr)
    return 1 if one.problems or two.problems else 0


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway.hops", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of each load that is not paced")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    return compare(options.seconds, options.rounds)


if __name__ == "__main__":
    sys.exit(main())
