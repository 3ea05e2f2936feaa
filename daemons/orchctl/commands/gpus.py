"""orchctl gpus: the GPUs of all machines, and the end of their fences."""

import argparse
from collections.abc import Iterator

from llama_orch.contracts.gpus import GpuList, GpuView
from orchctl.client import QueenClient, build_path
from orchctl.command import CliCommand, ListedValues, argument, identifier
from orchctl.commands.nodes import NODE_IDS
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.tables import UNKNOWN, format_table, gib, one_line

HEADER = ("NODE", "GPU", "NAME", "USED/ALL GiB", "BUSY", "TEMP", "POWER", "STATE", "POOLS", "J/1K TOKENS", "UUID")


async def list_gpus(options: argparse.Namespace, queen: QueenClient) -> None:
    body = await queen.get("/v2/gpus")
    print_one(options, body, GpuList, format_gpus, lambda listed: (gpu.uuid for gpu in listed.gpus))


async def unfence(options: argparse.Namespace, queen: QueenClient) -> None:
    """End a fence. Raises CommandError."""
    await queen.command("POST", build_path("/v2/gpus", options.gpu, "unfence", node_id=options.node))


def format_gpus(gpus: GpuList) -> str:
    """Format a row for each GPU, and below the table why some are not in order or missing."""
    table = format_table([HEADER, *map(_row, gpus.gpus)]) if gpus.gpus else "no GPUs are known"
    problems = (f"{machine}: {one_line(problem)}" for machine, problem in gpus.problems.items())
    return "\n".join([table, *_reasons(gpus), *problems])


def _reasons(gpus: GpuList) -> Iterator[str]:
    """Yield why GPUs are fenced, throttled, lost or unknown; a MIG instance only repeats the reason of its GPU."""
    for gpu in gpus.gpus:
        if gpu.state_reason and gpu.mig_index is None:
            where = f" on {one_line(gpu.node_id)}" if gpu.node_id else ""
            yield f"GPU {gpu.index}{where}: {one_line(gpu.state_reason)}"


def _row(gpu: GpuView) -> tuple[str, ...]:
    used = gpu.vram_total_bytes - gpu.vram_free_bytes
    return (
        one_line(gpu.node_id),
        str(gpu.index) if gpu.mig_index is None else f"{gpu.index}:{gpu.mig_index}",
        one_line(gpu.name),
        f"{gib(used)}/{gib(gpu.vram_total_bytes)}",
        _number(gpu.utilization, "%"),
        _number(gpu.temperature_c, " °C"),
        _number(gpu.power_w, " W"),
        one_line(gpu.state),
        ", ".join(one_line(pool.pool_id) for pool in gpu.pools) or UNKNOWN,
        ", ".join(_number(pool.joules_per_1000_tokens) for pool in gpu.pools) or UNKNOWN,
        one_line(gpu.uuid),
    )


def _number(value: float | None, unit: str = "") -> str:
    return UNKNOWN if value is None else f"{value:.0f}{unit}"


UNFENCE = CliCommand(
    "unfence",
    "let a fenced GPU work again, if it is in order although nothing tells that it was reset",
    unfence,
    [
        argument(
            "gpu",
            type=identifier,
            metavar="GPU",
            help="index or UUID of the GPU",
            completion=ListedValues("gpus"),
        ),
        argument(
            "--node", type=identifier, metavar="NODE", help="node of the GPU, if several have one", completion=NODE_IDS
        ),
    ],
)
GPUS = CliCommand("gpus", "show the GPUs of all machines; end the fence of one", list_gpus, LIST_ARGUMENTS, [UNFENCE])
