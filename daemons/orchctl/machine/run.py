"""orchctl run and serve: from a reference of a model to an answer, in one command."""

import argparse
import json
import math
from dataclasses import dataclass

import trio

from llama_orch.contracts.pools import PoolList, PoolState, PoolStatus
from llama_orch.service.exit import ExitStatus
from orchctl.chat.chat import converse
from orchctl.client import QueenClient, parse_response
from orchctl.command import CliCommand, argument, identifier
from orchctl.commands.loading import run_operation
from orchctl.commands.models import MODEL_NAMES, fetch_models
from orchctl.errors import CommandError
from orchctl.locations import DEFAULT_URL, UNIX
from orchctl.machine.pool import POOL_ARGUMENTS, add_pool, pool_draft
from orchctl.machine.provisioner import Provisioner, find_provisioner
from orchctl.machine.reference import is_reference, model_reference
from orchctl.machine.services import started
from orchctl.output import StatusLine, print_note, write, write_json

POLL_S = 0.3
UNSEEN_LIMIT_S = 60.0
"""How long the queen may not know a pool that this machine has configured."""


@dataclass(frozen=True)
class Served:
    """A pool and the name of its model."""

    pool_id: str
    model: str


async def run(options: argparse.Namespace, queen: QueenClient) -> None:
    """Serve MODEL, then answer PROMPT or chat. Raises CommandError."""
    queen = await started(options, queen)
    served = await serve_model(options, queen)
    await converse(options, queen, served.model, options.prompt)


async def serve(options: argparse.Namespace, queen: QueenClient) -> None:
    """Serve MODEL and print how to use it. Raises CommandError."""
    queen = await started(options, queen)
    served = await serve_model(options, queen)
    url = DEFAULT_URL if queen.url.startswith(UNIX) else queen.url
    if options.json:
        write_json({"url": f"{url}/v1", "model": served.model, "pool_id": served.pool_id})
        return
    body = json.dumps({"model": served.model, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False)
    write(f"model {served.model} is served at {url}/v1 by pool {served.pool_id}\n")
    write(f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n")


async def serve_model(options: argparse.Namespace, queen: QueenClient) -> Served:
    """Return the pool that has MODEL loaded; it is added and loaded if need be. Raises CommandError."""
    if known := await _known(options.model, queen):
        return known
    provisioner = find_provisioner()
    file = await add_pool(provisioner, pool_draft(options, None, model_reference(options.model)))
    if file.content is not None:
        print_note(f"pool {file.pool_id} is configured in {file.path} ({file.note})")
    pool = await _until_prepared(provisioner, queen, file.pool_id)
    if not pool.ready:
        await run_operation(options, queen, pool.pool_id, "preload", wait=True, quiet=True)
        pool = await _until_prepared(provisioner, queen, file.pool_id)
    return Served(pool.pool_id, pool.models_available[0])


async def _known(name: str, queen: QueenClient) -> Served | None:
    """Return the pool that has this id or model; None if `name` is a reference. Raises CommandError."""
    if is_reference(name):
        return None
    pools = await _pools(queen)
    for pool in pools:
        if pool.pool_id == name and pool.models_available:
            return Served(pool.pool_id, pool.models_available[0])
        if pool.pool_id == name and pool.state is PoolState.FAILED:
            raise _failed(pool.pool_id, pool.last_error)
    names = {model.id: model.pools for model in await fetch_models(queen)}
    if name in names:
        return Served(next(iter(names[name]), ""), name)
    known = ", ".join([*(pool.pool_id for pool in pools), *names]) or "none"
    hint = f"Known: {known}. Anything else must be a .gguf file or a reference, such as https://… or hf:…"
    raise CommandError(f"{name} is no pool and no model here", hint, ExitStatus.NO_INPUT)


async def _until_prepared(provisioner: Provisioner, queen: QueenClient, pool_id: str) -> PoolStatus:
    """Show progress until the queen reports the pool as loaded, or as ready to be loaded. Raises CommandError."""
    line = StatusLine()
    give_up_at = math.inf
    try:
        while True:
            found = next((pool for pool in await _pools(queen) if pool.pool_id == pool_id), None)
            if found and found.models_available and (found.ready or found.state is PoolState.UNLOADED):
                return found
            local = await provisioner.pool(pool_id)
            if local.state is PoolState.FAILED:
                raise _failed(pool_id, local.last_error)
            line.show(f"{pool_id}: {local.detail or local.state or 'waiting'}")
            give_up_at = _limit(give_up_at, known=found is not None or local.state is PoolState.PROVISIONING)
            if trio.current_time() > give_up_at:
                hint = "See orchctl check. pool-managerd must run on this machine, and report to this queen."
                raise CommandError(f"queen-rbee does not know pool {pool_id}", hint, ExitStatus.UNAVAILABLE)
            await trio.sleep(POLL_S)
    finally:
        line.clear()


def _limit(before: float, *, known: bool) -> float:
    """Return when to give up: not while the pool is known or is being prepared."""
    return math.inf if known else min(before, trio.current_time() + UNSEEN_LIMIT_S)


async def _pools(queen: QueenClient) -> list[PoolStatus]:
    return parse_response(PoolList, await queen.get("/v2/pools")).pools


def _failed(pool_id: str, reason: str | None) -> CommandError:
    hint = f"Log of its engine: journalctl -u llama-engine@{pool_id}. To remove it: orchctl pool rm {pool_id}"
    return CommandError(f"pool {pool_id} failed: {reason or 'no reason is known'}", hint, ExitStatus.UNAVAILABLE)


MODEL = argument(
    "model",
    type=identifier,
    metavar="MODEL",
    help="pool or model that is known here, .gguf file, or reference such as https://…; a new one becomes a pool",
    completion=MODEL_NAMES,
)
RUN = CliCommand(
    "run",
    "load a model, adding a pool for it if need be, and chat with it",
    run,
    [
        MODEL,
        argument("prompt", nargs="?", metavar="PROMPT", help="print one answer to this text"),
        argument("--system", metavar="TEXT", help="system message"),
        argument("--max-tokens", type=int, metavar="N", help="maximum length of each answer, in tokens"),
        *POOL_ARGUMENTS,
    ],
)
SERVE = CliCommand(
    "serve",
    "load a model, adding a pool for it if need be, and print its URL",
    serve,
    [MODEL, *POOL_ARGUMENTS],
)
