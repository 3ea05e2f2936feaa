"""orchctl bench: time to the first token and tokens per second of a model, for some numbers of clients."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchctl.client import QueenClient
from orchctl.command import CliCommand, argument, identifier
from orchctl.commands.models import MODEL_NAMES
from orchctl.output import StatusLine, print_progress, write, write_json

if TYPE_CHECKING:
    from orchctl.bench.figures import Figures

MAX_CLIENTS = 256
MAX_RUNS = 16
MAX_REQUESTS = 100_000
MAX_TOKENS = 1_000_000
HEADER = ("CLIENTS", "REQUESTS", "ERRORS", "TTFT P50", "TTFT P99", "TOKENS/S", "PER CLIENT", "IN", "OUT", "SECONDS")


def client_counts(text: str) -> list[int]:
    """Numbers of clients separated by commas."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not 1 <= len(counts) <= MAX_RUNS or not all(1 <= count <= MAX_CLIENTS for count in counts):
        allowed = f"at most {MAX_RUNS} numbers from 1 to {MAX_CLIENTS}, such as 1,2,4,8"
        raise argparse.ArgumentTypeError(f"invalid clients: {text!r} ({allowed})")
    return counts


def tokens(text: str) -> int:
    """A number of tokens."""
    return _number(text, "number of tokens", MAX_TOKENS)


def requests(text: str) -> int:
    """A number of requests."""
    return _number(text, "number of requests", MAX_REQUESTS)


def _number(text: str, what: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"invalid {what}: {text!r} (1 to {most})")
    return int(text)


async def bench(options: argparse.Namespace, queen: QueenClient) -> None:
    """Measure, and print a table or JSON. Raises CommandError; with some errors the exit status is 75.

    On Ctrl-C, SIGTERM and SIGHUP the requests that run are cancelled, and the completed runs are printed.
    """
    from llama_orch.service.exit import ExitStatus
    from orchctl.bench import load
    from orchctl.bench.figures import figures
    from orchctl.errors import CommandError
    from orchctl.nurseries import cancel_on_termination

    done: list[Figures] = []
    line = StatusLine()
    numbers = load.numbers()
    try:
        async with cancel_on_termination():
            line.show(f"{options.model}: one request to load the model")
            workload = load.Workload(options.model, options.prompt_tokens, options.tokens, 1)
            await load.warm_up(queen, workload, numbers)
            for clients in options.clients:
                count = options.requests or max(4, 4 * clients)
                workload = load.Workload(options.model, options.prompt_tokens, options.tokens, count)

                def progress(ended: int, clients: int = clients, count: int = count) -> None:
                    line.show(f"{options.model}: {clients} clients, {ended} of {count} requests")

                progress(0)
                done.append(figures(await load.run_clients(queen, workload, clients, numbers, progress)))
    finally:
        line.clear()
        if done:
            _print(options, done)
    if failed := sum(each.errors for each in done):
        raise CommandError(f"{failed} requests failed", "See orchctl check.", ExitStatus.TEMPORARY)


def _print(options: argparse.Namespace, done: "Sequence[Figures]") -> None:
    if options.json:
        write_json({"model": options.model, "runs": [each.model_dump(mode="json") for each in done]})
        return
    write(f"{format_figures(done)}\n")
    for each in done:
        for message, count in each.error_messages.items():
            print_progress(f"{each.clients} clients: {count} x {message}")


def format_figures(done: "Sequence[Figures]") -> str:
    """Format a row for each number of clients."""
    from orchctl.tables import format_table, optional

    rows = (
        (
            *(str(each.clients), str(each.requests), str(each.errors)),
            *map(optional, (each.ttft_p50_ms, each.ttft_p99_ms, each.tokens_per_s, each.tokens_per_s_client)),
            *(str(each.tokens_in), str(each.tokens_out), f"{each.seconds:.1f}"),
        )
        for each in done
    )
    return format_table([HEADER, *rows])


BENCH = CliCommand(
    "bench",
    "measure the time to the first token and the tokens per second of a model",
    bench,
    [
        argument("model", type=identifier, metavar="MODEL", help="model or pool to measure", completion=MODEL_NAMES),
        argument(
            "--clients",
            type=client_counts,
            metavar="LIST",
            default=[1, 2, 4, 8],
            help="numbers of clients that send requests at the same time, one run each (default: 1,2,4,8)",
        ),
        argument(
            "--prompt-tokens",
            type=tokens,
            metavar="N",
            default=128,
            help="approximate length of each prompt, in tokens (default: 128)",
        ),
        argument("--tokens", type=tokens, metavar="N", default=64, help="length of each answer (default: 64)"),
        argument("--requests", type=requests, metavar="N", help="requests of each run (default: four for each client)"),
    ],
)
