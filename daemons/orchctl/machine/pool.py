"""orchctl pool: add, show and remove pools of this machine."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import trio
from pydantic import ValidationError

from llama_orch.contracts.pool_files import ConfiguredPool, ConfiguredPools, PoolDraft, PoolFile
from llama_orch.service.exit import ExitStatus
from llama_orch.urls import hidden_in
from orchctl.client import QueenClient
from orchctl.command import CliCommand, argument, identifier
from orchctl.commands.pools import POOL_IDS
from orchctl.errors import CommandError
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.machine.provisioner import (
    Provisioner,
    find_provisioner,
    remove_drop_in,
    replace_drop_in,
    write_drop_in,
)
from orchctl.machine.reference import model_reference
from orchctl.output import print_note, write, write_json
from orchctl.tables import format_record, format_table, one_line

HEADER = ("POOL", "STATE", "MODE", "MODEL", "FILE")
KEYS = ("ctx", "slots", "devices", "keep_alive", "pinned", "preload", "checksum")
"""Options that are keys of the pool, but for `checksum`, which is one of its model."""


async def list_configured(options: argparse.Namespace, queen: QueenClient) -> None:
    """List the pools of this machine's files. Raises CommandError."""
    body = await find_provisioner().client.get("/v2/pools")
    print_one(
        options,
        body,
        ConfiguredPools,
        lambda found: _format(found.pools),
        lambda found: (each.pool_id for each in found.pools),
    )


def _format(pools: Sequence[ConfiguredPool]) -> str:
    if not pools:
        return "no pools are configured on this machine; orchctl pool add NAME --model REF adds one"
    rows = [(each.pool_id, one_line(each.state), each.mode, one_line(each.model), each.path) for each in pools]
    return format_table([HEADER, *rows])


async def add(options: argparse.Namespace, queen: QueenClient) -> None:
    """Add a pool. Raises CommandError with every problem; nothing is written then."""
    provisioner = find_provisioner()
    file = await add_pool(provisioner, pool_draft(options, options.name, model_reference(options.model)))
    if options.json:
        write_json(file.model_dump() | {"content": hidden_in(file.content) if file.content else None})
    elif file.content is None:
        write(f"pool {file.pool_id} is configured like this already, in {file.path}\n")
    else:
        write(f"pool {file.pool_id} is configured in {file.path} ({file.note})\n")


def pool_draft(options: argparse.Namespace, name: str | None, reference: str) -> PoolDraft:
    """Return what the options ask for. Raises CommandError."""
    keys = {key: value for key in KEYS if (value := getattr(options, key, None)) is not None}
    keys.setdefault("preload", False)
    model = {"ref": reference, "checksum": keys.pop("checksum")} if "checksum" in keys else None
    try:
        return PoolDraft(
            pool_id=name,
            model=reference,
            engine=options.engine_mode,
            keys={**keys, **({"model": model} if model else {})},
        )
    except ValidationError as error:
        problem = error.errors()[0]
        message = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        raise CommandError(
            message, "A name has at most 63 lower-case letters, digits and -.", ExitStatus.USAGE
        ) from error


async def add_pool(provisioner: Provisioner, draft: PoolDraft) -> PoolFile:
    """Write the drop-in file of a pool and have it applied, unless it is there already. Raises CommandError."""
    file = await provisioner.draft(draft)
    if file.content is None:
        return file
    if draft.pool_id is not None and any(each.pool_id == draft.pool_id for each in (await provisioner.pools()).pools):
        hint = f"To replace it: orchctl pool rm {file.pool_id}, then add it again; or edit {file.path}."
        raise CommandError(f"pool {file.pool_id} exists already, with other settings", hint, ExitStatus.DATA)
    write_drop_in(file)
    await provisioner.reload()
    return file


async def remove(options: argparse.Namespace, queen: QueenClient) -> None:
    """Remove a pool that has a file of its own. Raises CommandError."""
    provisioner = find_provisioner()
    pool = await provisioner.pool(options.name)
    if not pool.only:
        hint = "Remove it from that file, then: systemctl reload engine-provisioner"
        raise CommandError(f"pool {pool.pool_id} is configured in {pool.path}", hint, ExitStatus.DATA)
    path = Path(pool.path)
    content = remove_drop_in(path)
    try:
        await provisioner.reload()
    except CommandError:
        replace_drop_in(path, content)
        raise
    if options.json:
        write_json(pool.model_dump(mode="json"))
    else:
        write(f"pool {pool.pool_id} is removed ({pool.path})\n")


async def show(options: argparse.Namespace, queen: QueenClient) -> None:
    """Show a pool and its file. Raises CommandError."""
    pool = await find_provisioner().pool(options.name)
    if options.json:
        write_json(pool.model_dump(mode="json"))
        return
    write(format_record(pool, "only") + "\n")
    try:
        content = await trio.Path(pool.path).read_text()
    except (OSError, UnicodeDecodeError):
        print_note(f"{pool.path} cannot be read by this user")
    else:
        if pool.only:
            write(f"\n{hidden_in(content)}")


def devices(text: str) -> list[int] | str:
    """GPU indices separated by commas, or cpu."""
    if text == "cpu":
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid devices: {text!r} (examples: 0,1 or cpu)") from None


def keep_alive(text: str) -> str | int:
    """A duration such as 5m, or whole seconds. engine-provisioner checks it."""
    try:
        return int(text)
    except ValueError:
        return text


NAME = argument("name", type=identifier, metavar="NAME", help="id of the pool", completion=POOL_IDS)
POOL_ARGUMENTS = (
    argument("--ctx", type=int, metavar="N", help="context of each slot, in tokens (default: 4096)"),
    argument("--slots", type=int, metavar="N", help="number of concurrent requests (default: 1)"),
    argument(
        "--devices",
        type=devices,
        metavar="LIST",
        help="GPUs, such as 0,1, or cpu (default: all GPUs that engines may use)",
    ),
    argument(
        "--keep-alive",
        type=keep_alive,
        metavar="TIME",
        help="how long the model stays in memory unused, such as 5m (the default) or -1",
    ),
    argument("--pinned", action="store_const", const=True, help="never unload it to make room for others"),
    argument("--preload", action="store_const", const=True, help="load it at once, and keep it loaded"),
    argument("--checksum", metavar="SHA256", help="checksum of the model, sha256:…"),
    argument(
        "--engine-mode",
        choices=["package", "pip"],
        help="llama-server from the distribution's package or from pip (default: as in other pools, or what is there)",
    ),
)
ADD = CliCommand(
    "add",
    "add a pool to this machine",
    add,
    [
        argument("name", type=identifier, metavar="NAME", help="id of the new pool"),
        argument("--model", required=True, metavar="REF", help="file, URL or other reference of the model"),
        *POOL_ARGUMENTS,
    ],
)
POOL = CliCommand(
    "pool",
    "show the pools that are configured on this machine; add and remove pools",
    list_configured,
    LIST_ARGUMENTS,
    [
        ADD,
        CliCommand("rm", "stop a pool and remove it from this machine", remove, [NAME]),
        CliCommand("show", "show a pool of this machine and its file", show, [NAME]),
    ],
)
