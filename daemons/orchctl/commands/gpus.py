"""orchctl gpus: the GPUs of all machines."""

import argparse

from llama_orch.contracts.nodes import GpuList, GpuView
from orchctl.client import QueenClient
from orchctl.command import CliCommand
from orchctl.output import print_response
from orchctl.tables import UNKNOWN, format_table, gib, one_line, optional

HEADER = ("NODE", "GPU", "NAME", "FREE GiB", "ALL GiB", "BUSY", "COMPUTE", "UUID")


async def list_gpus(options: argparse.Namespace, queen: QueenClient) -> None:
    print_response(options.json, await queen.get("/v2/gpus"), GpuList, format_gpus)


def format_gpus(gpus: GpuList) -> str:
    """Format a row for each GPU, and below the table why those of a machine are missing."""
    table = format_table([HEADER, *map(_row, gpus.gpus)]) if gpus.gpus else "no GPUs are known"
    return "\n".join([table, *(f"{machine}: {one_line(problem)}" for machine, problem in gpus.problems.items())])


def _row(gpu: GpuView) -> tuple[str, ...]:
    return (
        one_line(gpu.node_id),
        str(gpu.index),
        one_line(gpu.name),
        gib(gpu.vram_free_bytes),
        gib(gpu.vram_total_bytes),
        UNKNOWN if gpu.utilization is None else f"{gpu.utilization}%",
        optional(gpu.compute_capability),
        one_line(gpu.uuid),
    )


GPUS = CliCommand("gpus", "show the GPUs of all machines", list_gpus)
