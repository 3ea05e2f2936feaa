"""orchctl models --disk, rm, pin and unpin: the models on the disk of this machine."""

import argparse

from llama_orch.contracts.models import DiskModel, DiskModelList, ModelRemoved
from orchctl.client import QueenClient, build_path
from orchctl.command import CliCommand, ListedValues, argument, identifier
from orchctl.lists import print_one
from orchctl.output import print_response
from orchctl.provisioner import provisioner_client, provisioner_errors
from orchctl.tables import UNKNOWN, age, format_table, one_line, size, yes_no

PATH = "/v2/models"
HEADER = ("MODEL", "QUANT", "SIZE", "USED", "PINNED", "POOLS")
NONE_HINT = "no models are on the disk; orchctl pull REF fetches one"


async def list_disk_models(options: argparse.Namespace) -> None:
    """Raises CommandError."""
    with provisioner_errors():
        body = await provisioner_client(options.url).get(PATH)
        print_one(options, body, DiskModelList, format_disk_models, lambda listed: (each.ref for each in listed.models))


def format_disk_models(listed: DiskModelList) -> str:
    """Format a row for each model, and below the table the problems of files and the total."""
    if not listed.models:
        return NONE_HINT
    problems = (f"{model.ref}: {one_line(model.problem)}" for model in listed.models if model.problem)
    limit = f" of {size(listed.limit_bytes)}" if listed.limit_bytes else ""
    total = f"{size(listed.total_bytes)}{limit} downloaded"
    return "\n".join([format_table([HEADER, *map(_row, listed.models)]), *problems, total])


def _row(model: DiskModel) -> tuple[str, ...]:
    return (
        model.ref,
        model.quantization or UNKNOWN,
        size(model.size_bytes),
        f"{age(model.used_at)} ago",
        yes_no(model.pinned),
        one_line(", ".join(model.pools)),
    )


async def remove_model(options: argparse.Namespace, queen: QueenClient) -> None:
    """Raises CommandError."""
    force = "true" if options.force else None
    with provisioner_errors():
        body = await provisioner_client(options.url).call("DELETE", build_path(PATH, ref=options.ref, force=force))
        print_response(options.json, body, ModelRemoved, lambda removed: f"{size(removed.freed_bytes)} freed")


async def pin_model(options: argparse.Namespace, queen: QueenClient) -> None:
    await _set_pinned(options, pinned=True)


async def unpin_model(options: argparse.Namespace, queen: QueenClient) -> None:
    await _set_pinned(options, pinned=False)


async def _set_pinned(options: argparse.Namespace, *, pinned: bool) -> None:
    """Raises CommandError."""
    with provisioner_errors():
        await provisioner_client(options.url).call("POST", f"{PATH}/pin", {"ref": options.ref, "pinned": pinned})


REF = argument(
    "ref",
    type=identifier,
    metavar="REF",
    help="reference of the model, as in the list",
    completion=ListedValues("models --disk"),
)

RM = CliCommand(
    "rm",
    "remove a model from the disk of this machine",
    remove_model,
    [REF, argument("--force", action="store_true", help="remove it although pools use it")],
)
PIN = CliCommand("pin", "protect a model on the disk from being removed to make room", pin_model, [REF])
UNPIN = CliCommand("unpin", "let a model on the disk be removed to make room again", unpin_model, [REF])
