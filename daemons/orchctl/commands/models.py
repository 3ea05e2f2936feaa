"""orchctl models: the names that clients may ask for."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.openai import ModelEntries, ModelEntry
from orchctl.client import QueenClient, understood
from orchctl.command import Commands
from orchctl.output import show
from orchctl.tables import cell, one_line, table, yes

PATH = "/v1/models"


def add(commands: Commands) -> None:
    """Add the command `models`."""
    commands.add("models", models, "the models that clients may ask for")


async def models(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of them. Raises CommandError."""
    show(options.json, await queen.get(PATH), ModelEntries, lambda found: models_text(found.data))


async def offered(queen: QueenClient) -> list[ModelEntry]:
    """They themselves, those that can answer now first. Raises CommandError."""
    return sorted(understood(ModelEntries, await queen.get(PATH)).data, key=lambda model: not model.ready)


def models_text(found: Sequence[ModelEntry]) -> str:
    """One line a name; the context is in tokens a slot."""
    if not found:
        return "no model is served; see orchctl pools"
    rows = ((model.id, yes(model.ready), one_line(", ".join(model.pools)), cell(model.ctx_max)) for model in found)
    return table([("MODEL", "READY", "POOLS", "CONTEXT"), *rows])
