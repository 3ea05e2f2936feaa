"""orchctl gpus: the GPUs of all machines."""

import argparse

from llama_orch.contracts.nodes import GpuList, GpuView
from orchctl.client import QueenClient
from orchctl.command import Commands
from orchctl.output import show
from orchctl.tables import cell, gib, one_line, table

PATH = "/v2/gpus"
HEADER = ("NODE", "GPU", "NAME", "FREE GiB", "ALL GiB", "BUSY", "COMPUTE", "UUID")


def add(commands: Commands) -> None:
    """Add the command `gpus`."""
    commands.add("gpus", gpus, "the GPUs of all machines")


async def gpus(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of them. Raises CommandError."""
    show(options.json, await queen.get(PATH), GpuList, gpus_text)


def gpus_text(found: GpuList) -> str:
    """One line a GPU, and below them why a machine's are not among them."""
    shown = table([HEADER, *map(_row, found.gpus)]) if found.gpus else "no GPU is known"
    return "\n".join([shown, *(f"{machine}: {one_line(problem)}" for machine, problem in found.problems.items())])


def _row(gpu: GpuView) -> tuple[str, ...]:
    return (
        one_line(gpu.node_id),
        str(gpu.index),
        one_line(gpu.name),
        gib(gpu.vram_free_bytes),
        gib(gpu.vram_total_bytes),
        "-" if gpu.utilization is None else f"{gpu.utilization}%",
        cell(gpu.compute_capability),
        one_line(gpu.uuid),
    )
