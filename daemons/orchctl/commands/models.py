"""orchctl models: the model names that clients may request."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.openai import ModelEntries, ModelEntry
from orchctl.client import QueenClient, parse_response
from orchctl.command import CliCommand, ListedValues, argument
from orchctl.commands.disk_models import list_disk_models
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.tables import format_table, one_line, optional, yes_no

PATH = "/v1/models"
MODEL_NAMES = ListedValues("models")


async def list_models(options: argparse.Namespace, queen: QueenClient) -> None:
    """Raises CommandError."""
    if options.disk:
        await list_disk_models(options)
        return
    body = await queen.get(PATH)
    print_one(
        options,
        body,
        ModelEntries,
        lambda listed: format_models(listed.data),
        lambda listed: (model.id for model in listed.data),
    )


async def fetch_models(queen: QueenClient) -> list[ModelEntry]:
    """Return the models, those with a ready pool first. Raises CommandError."""
    return sorted(parse_response(ModelEntries, await queen.get(PATH)).data, key=lambda model: not model.ready)


def format_models(models: Sequence[ModelEntry]) -> str:
    """Format a row for each name; CONTEXT is in tokens for one slot."""
    if not models:
        return "no models are served; see orchctl pools"
    rows = (
        (model.id, yes_no(model.ready), one_line(", ".join(model.pools)), optional(model.ctx_max)) for model in models
    )
    return format_table([("MODEL", "READY", "POOLS", "CONTEXT"), *rows])


MODELS = CliCommand(
    "models",
    "show the models that clients may request, or those on this machine's disk",
    list_models,
    [
        argument("--disk", action="store_true", help="show the models on the disk of this machine, and who uses them"),
        *LIST_ARGUMENTS,
    ],
)
