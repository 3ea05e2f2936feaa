"""orchctl reload and purge: prepare a pool anew while it serves, and remove its files from the disk."""

import argparse

from llama_orch.contracts.models import DiskModelList
from llama_orch.contracts.pool_files import ConfiguredPools
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, parse_response
from orchctl.command import CliCommand, argument
from orchctl.commands.disk_models import PATH
from orchctl.commands.loading import NO_WAIT, NODE, POOL, run_operation
from orchctl.commands.pull import fetch
from orchctl.errors import CommandError
from orchctl.machine.reference import SCHEMES, model_reference
from orchctl.provisioner import find_socket, provisioner_client, provisioner_errors
from orchctl.stdin import is_confirmed


async def reload(options: argparse.Namespace, queen: QueenClient) -> None:
    """Reload the pool. Raises CommandError. Ctrl-C calls the reload off while the former engine serves."""
    body = None
    if options.model:
        local = await _is_here(options)
        reference = model_reference(options.model) if local or not options.model.startswith(SCHEMES) else options.model
        if local:
            await _provide(reference)
        body = {"new_model_ref": reference}
    await run_operation(options, queen, options.pool, "reload", wait=not options.no_wait, body=body)


async def _is_here(options: argparse.Namespace) -> bool:
    """Whether the engine-provisioner of this machine runs and has the pool. Raises CommandError."""
    if options.node or find_socket() is None:
        return False
    with provisioner_errors():
        answer = await provisioner_client(None).get("/v2/pools")
        return any(pool.pool_id == options.pool for pool in parse_response(ConfiguredPools, answer).pools)


async def _provide(reference: str) -> None:
    """Have the model on the disk of this machine, from where the pool takes it. Raises CommandError."""
    with provisioner_errors():
        client = provisioner_client(None)
        listed = parse_response(DiskModelList, await client.get(PATH))
        if all(model.ref != reference for model in listed.models):
            await fetch(client, reference)


async def purge(options: argparse.Namespace, queen: QueenClient) -> None:
    """Unload the pool and remove its files. Raises CommandError."""
    if not options.yes and not is_confirmed(f"Unload pool {options.pool} and remove its model from the disk?"):
        hint = "Nothing has changed. To purge without being asked, add --yes."
        raise CommandError(f"pool {options.pool} is not purged", hint, ExitStatus.USAGE)
    await run_operation(options, queen, options.pool, "purge", wait=not options.no_wait)


RELOAD = CliCommand(
    "reload",
    "prepare a pool anew while it serves, then replace its engine",
    reload,
    [
        POOL,
        argument("--model", metavar="REF", help="give the pool this model, which is fetched first if need be"),
        NODE,
        NO_WAIT,
    ],
)
PURGE = CliCommand(
    "purge",
    "unload a pool, and remove the files that only it uses from the disk",
    purge,
    [POOL, argument("--yes", action="store_true", help="do not ask"), NODE, NO_WAIT],
)
