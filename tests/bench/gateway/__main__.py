"""CPU, rate and latency of queen-rbee beside nginx, sglang-router and LiteLLM: the same clients, engine and cores.

The gateway has one core, clients and engine the other. CPU is that of all of the gateway's processes, per request of 16
tokens that the engine sends at once, and per token of 32 streams of 64 tokens that it sends every 20 ms. Added time to
first token (TTFT) is the difference between percentiles with and without the gateway, with 4 clients.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.figures import cores, on_core, percentile
from tests.bench.gateway.engine import PACED, engine
from tests.bench.gateway.gateways import GATEWAYS, Gateway
from tests.bench.gateway.install import NotInstalled
from tests.bench.gateway.load import PACED_CHAT, STREAMED, WHOLE, Answers, ask
from tests.bench.gateway.profiling import FORMAT, profile

CLIENTS = (1, 16, 64)
LATENCY_CLIENTS = 4
STREAMS, STREAMS_EACH = 32, 4
SECONDS, QUICK_SECONDS = 5.0, 1.5
WARM_UP_S = 1.0
KINDS = {"streamed": STREAMED, "whole": WHOLE}


@dataclass(frozen=True)
class Load:
    """Microseconds of CPU per request and requests per second, with one number of clients."""

    cpu_us: float
    rate: float


@dataclass
class Figures:
    """What was measured of one gateway."""

    loads: dict[tuple[str, int], Load] = field(default_factory=dict)
    first_s: list[float] = field(default_factory=list)
    token_us: float = 0.0
    rss_mb: float = 0.0
    problems: list[str] = field(default_factory=list)


def measure(gateway: Gateway, seconds: float) -> Figures:
    """Measure one gateway."""
    found = Figures()
    ask(gateway.port, STREAMED, LATENCY_CLIENTS, seconds=WARM_UP_S)
    for kind, request in KINDS.items():
        for clients in CLIENTS:
            before = gateway.cost.cpu_s
            answers = ask(gateway.port, request, clients, seconds=seconds)
            spent_s, number = gateway.cost.cpu_s - before, max(1, len(answers.took_s))
            found.loads[kind, clients] = Load(1e6 * spent_s / number, number / seconds)
            found.problems += answers.problems
    _note(found, answers := ask(gateway.port, STREAMED, LATENCY_CLIENTS, seconds=seconds))
    found.first_s = answers.first_s
    before = gateway.cost.cpu_s
    _note(found, answers := ask(gateway.port, PACED_CHAT, STREAMS, requests=STREAMS * STREAMS_EACH))
    found.token_us = 1e6 * (gateway.cost.cpu_s - before) / max(1, len(answers.took_s) * PACED)
    found.rss_mb = gateway.cost.rss_mb
    return found


def _note(figures: Figures, answers: Answers) -> None:
    figures.problems += answers.problems


def row(name: str, found: Figures, direct: Figures | None) -> list[str]:
    """Return a line of the table."""
    cpu = [f"{found.loads[kind, clients].cpu_us:.0f}" for kind in KINDS for clients in CLIENTS]
    rates = [f"{found.loads[kind, clients].rate:.0f}" for kind in KINDS for clients in CLIENTS]
    added = [
        f"{1000 * (percentile(found.first_s, share) - percentile(direct.first_s, share)):.2f}" if direct else ""
        for share in (0.5, 0.99)
    ]
    return [name, *cpu, f"{found.token_us:.0f}", *rates, *added, f"{found.rss_mb:.0f}"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in rows
    )
    return "\n".join(lines)


HEAD = [
    "",
    *(f"{kind[0]}{clients} us" for kind in KINDS for clients in CLIENTS),
    "us/token",
    *(f"{kind[0]}{clients} req/s" for kind in KINDS for clients in CLIENTS),
    "+p50 ms",
    "+p99 ms",
    "MB",
]


def print_ratios(results: dict[str, Figures]) -> None:
    """Print queen-rbee's cost as multiples of that of the others."""
    ours = results.get("queen-rbee")
    for name, other in results.items():
        if ours is None or other is ours or name == "direct":
            continue
        cpu = ", ".join(
            f"{kind} {clients}: {ours.loads[kind, clients].cpu_us / max(1.0, other.loads[kind, clients].cpu_us):.1f}"
            for kind in KINDS
            for clients in CLIENTS
        )
        rate = ours.loads["streamed", 16].rate / other.loads["streamed", 16].rate
        print(f"queen-rbee / {name}: CPU per request {cpu}; ", end="")
        print(f"CPU per token {ours.token_us / max(1.0, other.token_us):.1f}; requests/s with 16 clients {rate:.2f}")


def compare(names: Sequence[str], seconds: float) -> int:
    """Measure the gateways `names` and print the table; return 1 if a gateway's answers were wrong."""
    relay_core, other_core = cores()
    print(
        f"gateway: gateways on core {relay_core}, engine and clients on core {other_core}; {seconds:g} s for each load"
    )
    print(
        "columns: CPU per request streamed (s) and whole (w) with 1, 16, 64 clients; CPU per token; rates; added TTFT"
    )
    results: dict[str, Figures] = {}
    with engine(other_core) as url:
        for name in names:
            try:
                with GATEWAYS[name](url) as gateway, on_core(other_core):
                    results[name] = measure(gateway, seconds)
            except NotInstalled as error:
                print(f"{name} is left out: {error}")
    print(table([HEAD, *(row(name, found, results.get("direct")) for name, found in results.items())]))
    print_ratios(results)
    problems = [(name, problem) for name, found in results.items() for problem in found.problems[:3]]
    for name, problem in problems:
        print(f"{name}: wrong answer: {problem}", file=sys.stderr)
    return 1 if problems else 0


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter loads, and no LiteLLM")
    parser.add_argument("--only", metavar="NAMES", help=f"comma-separated: {', '.join(GATEWAYS)}")
    parser.add_argument("--profile", choices=["streamed", "whole", "paced"], help="profile queen-rbee instead")
    parser.add_argument("--output", type=Path, help=f"also write the profile's stacks to this file ({FORMAT})")
    options = parser.parse_args()
    if options.profile:
        return profile(options.profile, options.output)
    names = (
        options.only.split(",")
        if options.only
        else [name for name in GATEWAYS if name != "litellm" or not options.quick]
    )
    return compare(names, QUICK_SECONDS if options.quick else SECONDS)


if __name__ == "__main__":
    sys.exit(main())
