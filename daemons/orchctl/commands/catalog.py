"""orchctl catalog: the model catalog, in which clients find models by name."""

import argparse
from collections.abc import Sequence

from llama_orch.contracts.catalog import Availability, CatalogList, CatalogModel, ModelState
from orchctl.client import QueenClient, build_path
from orchctl.command import CliCommand, ListedValues, argument, finite_number, identifier
from orchctl.commands.digest import file_digest
from orchctl.commands.verification import PATH, print_verified
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.output import print_response
from orchctl.tables import format_record, format_table, one_line, optional, yes_no

HEADER = ("MODEL", "STATE", "DIGEST", "COST", "SERVED AS")


async def list_models(options: argparse.Namespace, queen: QueenClient) -> None:
    body = await queen.get(PATH)
    print_one(
        options,
        body,
        CatalogList,
        lambda catalog: format_catalog(catalog.models),
        lambda catalog: (model.id for model in catalog.models),
    )


def format_catalog(models: Sequence[CatalogModel]) -> str:
    return format_table([HEADER, *map(_row, models)]) if models else "the catalog is empty"


def _row(model: CatalogModel) -> tuple[str, ...]:
    digest = model.verification.state if model.digest else "none"
    return model.id, model.state, digest, optional(model.cost_per_1k_tokens), model.model_ref


async def add_model(options: argparse.Namespace, queen: QueenClient) -> None:
    """Add a model. Raises CommandError, with --wait also if its digest is not verified."""
    digest = file_digest(options.digest_of) if options.digest_of else options.digest
    optional_fields = {
        "digest": digest,
        "cost_per_1k_tokens": options.cost,
        "metadata": dict(options.metadata or ()) or None,
    }
    body = {"id": options.id, "model_ref": options.model_ref}
    body |= {name: value for name, value in optional_fields.items() if value is not None}
    await print_verified(options, queen, await queen.call("POST", PATH, body))


async def show_model(options: argparse.Namespace, queen: QueenClient) -> None:
    print_response(options.json, await queen.get(build_path(PATH, options.id)), CatalogModel, format_record)


async def remove_model(options: argparse.Namespace, queen: QueenClient) -> None:
    await queen.command("DELETE", build_path(PATH, options.id))


async def retire_model(options: argparse.Namespace, queen: QueenClient) -> None:
    await _set_state(options, queen, ModelState.RETIRED)


async def activate_model(options: argparse.Namespace, queen: QueenClient) -> None:
    await _set_state(options, queen, ModelState.ACTIVE)


async def _set_state(options: argparse.Namespace, queen: QueenClient, state: ModelState) -> None:
    body = await queen.call("POST", build_path(PATH, options.id, "state"), {"state": state})
    print_response(options.json, body, CatalogModel, format_record)


async def verify_model(options: argparse.Namespace, queen: QueenClient) -> None:
    """Start the verification of a model's digest. Raises CommandError, with --wait also if it is not verified."""
    await print_verified(options, queen, await queen.call("POST", build_path(PATH, options.id, "verify")))


async def show_availability(options: argparse.Namespace, queen: QueenClient) -> None:
    body = await queen.get("/v2/catalog/availability")
    print_one(options, body, Availability, format_availability, lambda listed: listed.nodes)


def format_availability(availability: Availability) -> str:
    rows = [
        (node.node_id, yes_no(node.online), one_line(", ".join(node.pools)), one_line(", ".join(node.models)))
        for node in availability.nodes.values()
    ]
    return format_table([("NODE", "ONLINE", "POOLS", "MODELS"), *rows]) if rows else "no nodes are known"


def name_and_text(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=TEXT")
    return name, value


NEW_ID = argument("id", type=identifier, metavar="ID", help="name of the model in the catalog")
ID = argument(
    "id",
    type=identifier,
    metavar="ID",
    help="name of the model in the catalog",
    completion=ListedValues("catalog list"),
)
WAIT = argument(
    "--wait", action="store_true", help="wait for the verification of the digest; exit status 65 if it does not match"
)

CATALOG = CliCommand(
    "catalog",
    "manage the model catalog: list, add, show, change, verify",
    list_models,
    LIST_ARGUMENTS,
    [
        CliCommand("list", "show all models of the catalog", list_models, LIST_ARGUMENTS),
        CliCommand(
            "add",
            "add a model to the catalog",
            add_model,
            [
                NEW_ID,
                argument(
                    "model_ref", type=identifier, metavar="MODEL", help="reference or file name, as pools serve it"
                ),
                argument("--digest", metavar="DIGEST", help="sha256: and 64 hex digits", exclusive="digest"),
                argument(
                    "--digest-of",
                    metavar="FILE",
                    help="use the digest of this local file",
                    completion="files",
                    exclusive="digest",
                ),
                argument("--cost", type=finite_number, metavar="X", help="cost of 1000 tokens (default: 0)"),
                WAIT,
                argument("--metadata", type=name_and_text, action="append", metavar="NAME=TEXT", help="repeatable"),
            ],
        ),
        CliCommand("show", "show all fields of a model", show_model, [ID]),
        CliCommand("remove", "remove a model from the catalog", remove_model, [ID]),
        CliCommand("retire", "refuse new tasks for a model", retire_model, [ID]),
        CliCommand("activate", "accept tasks for a model again", activate_model, [ID]),
        CliCommand("verify", "verify a model's file against its digest", verify_model, [ID, WAIT]),
        CliCommand("availability", "show which nodes have which models", show_availability, LIST_ARGUMENTS),
    ],
)
