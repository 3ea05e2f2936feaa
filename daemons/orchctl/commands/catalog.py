"""orchctl catalog: the models that the queen knows by name, and whether their digests are right."""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import trio

from llama_orch.contracts.catalog import Availability, CatalogList, CatalogModel, ModelState, VerificationState
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, below, understood
from orchctl.command import Commands, identifier, number
from orchctl.errors import CommandError
from orchctl.output import StatusLine, show
from orchctl.tables import cell, one_line, table, whole, yes

CHUNK = 4 << 20


def digest_of(name: str) -> str:
    """`sha256:` and the digest of the file. Raises CommandError where it cannot be read.

    In no thread: nothing else waits for this process, and Ctrl-C gets through between two chunks.
    """
    line = StatusLine()
    try:
        if not Path(name).is_file():
            raise CommandError(f"{name} is no file", "", ExitStatus.NO_INPUT)
        return f"sha256:{_hashed(Path(name), line)}"
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}", "", ExitStatus.NO_INPUT) from error
    finally:
        line.clear()


def _hashed(path: Path, line: StatusLine) -> str:
    digest, size, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            line.show(f"{path.name}: {100 * done // max(size, done)} %")
    return digest.hexdigest()


POLL_S = 0.5
OUTCOMES = {
    VerificationState.MISMATCH: ExitStatus.DATA,
    VerificationState.UNVERIFIED: ExitStatus.DATA,
    VerificationState.UNAVAILABLE: ExitStatus.UNAVAILABLE,
}
"""How `--wait` ends where the digest is not right, was never given, or cannot be checked now."""


async def show_verified(options: argparse.Namespace, queen: QueenClient, body: bytes) -> None:
    """Show the model `options.id`; `body` is how it was a moment ago. Raises CommandError, with `--wait` unless verified."""
    if options.wait:
        body = await _outcome(options.id, queen, body)
    show(options.json, body, CatalogModel, whole)
    found = understood(CatalogModel, body).verification
    if options.wait and found.state in OUTCOMES:
        actual = f": {found.actual}" if found.state is VerificationState.MISMATCH and found.actual else ""
        reason = f"{found.reason or found.state}{actual}"
        raise CommandError(f"{options.id} is not verified: {reason}", "", OUTCOMES[found.state])


async def _outcome(name: str, queen: QueenClient, body: bytes) -> bytes:
    line = StatusLine()
    try:
        while understood(CatalogModel, body).verification.state is VerificationState.PENDING:
            line.show(f"{name} is being verified")
            await trio.sleep(POLL_S)
            body = await queen.get(below("/v2/catalog/models", name))
        return body
    finally:
        line.clear()


PATH = "/v2/catalog/models"
HEADER = ("MODEL", "STATE", "DIGEST", "COST", "SERVED AS")


def add(commands: Commands) -> None:
    """Add the command `catalog` with those below it; alone it lists."""
    below_it = Commands(commands.add("catalog", list_models, "the model catalog: list, add, show, change, verify"))
    below_it.add("list", list_models, "all models of the catalog")
    _add_new(below_it)
    for name, run, words in (
        ("show", show_model, "all that is known of a model"),
        ("remove", remove, "take a model out of the catalog"),
        ("retire", retire, "let no task ask for a model any more"),
        ("activate", activate, "let tasks ask for a model again"),
    ):
        _named(below_it.add(name, run, words))
    verify_it = below_it.add("verify", verify, "have a model's file checked against its digest")
    _named(verify_it)
    _waiting(verify_it)
    below_it.add("availability", availability, "which nodes have which models")


def _named(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", type=identifier, metavar="ID", help="the model's name in the catalog")


def _add_new(commands: Commands) -> None:
    command = commands.add("add", add_model, "put a model into the catalog")
    _named(command)
    served_as = "reference or file name, as pools serve it"
    command.add_argument("model_ref", type=identifier, metavar="MODEL", help=served_as)
    digest = command.add_mutually_exclusive_group()
    digest.add_argument("--digest", metavar="DIGEST", help="sha256: and 64 hex digits")
    digest.add_argument("--digest-of", metavar="FILE", help="the digest of this file")
    command.add_argument("--cost", type=number, metavar="X", help="cost of 1000 tokens (default: 0)")
    _waiting(command)
    command.add_argument("--metadata", type=_pair, action="append", metavar="NAME=TEXT", help="repeatable")


def _waiting(command: argparse.ArgumentParser) -> None:
    words = "until it is known whether the digest is right; exit status 65 if it is not"
    command.add_argument("--wait", action="store_true", help=words)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=TEXT")
    return name, value


async def list_models(options: argparse.Namespace, queen: QueenClient) -> None:
    """A table of the catalog. Raises CommandError."""
    show(options.json, await queen.get(PATH), CatalogList, lambda found: catalog_text(found.models))


def catalog_text(found: Sequence[CatalogModel]) -> str:
    """One line a model."""
    return table([HEADER, *map(_row, found)]) if found else "the catalog is empty"


def _row(model: CatalogModel) -> tuple[str, ...]:
    digest = model.verification.state if model.digest else "none"
    return model.id, model.state, digest, cell(model.cost_per_1k_tokens), model.model_ref


async def add_model(options: argparse.Namespace, queen: QueenClient) -> None:
    """A new model, whose digest the queen checks from now on. Raises CommandError, with `--wait` also where it is wrong."""
    digest = digest_of(options.digest_of) if options.digest_of else options.digest
    wanted = {"digest": digest, "cost_per_1k_tokens": options.cost, "metadata": dict(options.metadata or ()) or None}
    body = {"id": options.id, "model_ref": options.model_ref}
    body |= {name: value for name, value in wanted.items() if value is not None}
    await show_verified(options, queen, await queen.call("POST", PATH, body))


async def show_model(options: argparse.Namespace, queen: QueenClient) -> None:
    """One model. Raises CommandError."""
    show(options.json, await queen.get(below(PATH, options.id)), CatalogModel, whole)


async def remove(options: argparse.Namespace, queen: QueenClient) -> None:
    """One model less. Raises CommandError."""
    await queen.bid("DELETE", below(PATH, options.id))


async def retire(options: argparse.Namespace, queen: QueenClient) -> None:
    """No task may ask for it. Raises CommandError."""
    await _change(options, queen, ModelState.RETIRED)


async def activate(options: argparse.Namespace, queen: QueenClient) -> None:
    """Tasks may ask for it. Raises CommandError."""
    await _change(options, queen, ModelState.ACTIVE)


async def _change(options: argparse.Namespace, queen: QueenClient, state: ModelState) -> None:
    body = await queen.call("POST", below(PATH, options.id, "state"), {"state": state})
    show(options.json, body, CatalogModel, whole)


async def verify(options: argparse.Namespace, queen: QueenClient) -> None:
    """Have the digest checked. Raises CommandError, with `--wait` also where it is not verified in the end."""
    await show_verified(options, queen, await queen.call("POST", below(PATH, options.id, "verify")))


async def availability(options: argparse.Namespace, queen: QueenClient) -> None:
    """Which nodes have which models. Raises CommandError."""
    show(options.json, await queen.get("/v2/catalog/availability"), Availability, availability_text)


def availability_text(found: Availability) -> str:
    """One line a node."""
    rows = [
        (node.node_id, yes(node.online), one_line(", ".join(node.pools)), one_line(", ".join(node.models)))
        for node in found.nodes.values()
    ]
    return table([("NODE", "ONLINE", "POOLS", "MODELS"), *rows]) if rows else "no node is known"
