"""engine-provisioner of this machine, and the drop-in files that it reads."""

import grp
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from llama_orch.contracts.pool_files import ConfiguredPool, ConfiguredPools, PoolDraft, PoolFile
from llama_orch.contracts.pools import PoolsReload
from llama_orch.files import durable
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, parse_response
from orchctl.errors import CommandError
from orchctl.locations import UNIX
from orchctl.provisioner import NAME, find_socket

DROP_IN_MODE = 0o640
"""A reference may hold a password or a signature, so that only root and the daemon read the file."""


@dataclass(frozen=True)
class Provisioner:
    """The engine-provisioner of this machine, by its Unix socket."""

    client: QueenClient

    async def pools(self) -> ConfiguredPools:
        """Return the configured pools. Raises CommandError."""
        return parse_response(ConfiguredPools, await self.client.get("/v2/pools"))

    async def pool(self, pool_id: str) -> ConfiguredPool:
        """Return a configured pool. Raises CommandError if there is none."""
        pools = (await self.pools()).pools
        for pool in pools:
            if pool.pool_id == pool_id:
                return pool
        known = ", ".join(pool.pool_id for pool in pools) or "none"
        raise CommandError(f"no pool {pool_id} is configured on this machine", f"Pools: {known}.", ExitStatus.NO_INPUT)

    async def draft(self, draft: PoolDraft) -> PoolFile:
        """Return a valid file for a pool. Raises CommandError with every problem if there is none."""
        body = draft.model_dump(mode="json", exclude_none=True)
        return parse_response(PoolFile, await self.client.call("POST", "/v2/pools/draft", body))

    async def reload(self) -> PoolsReload:
        """Apply the files. Raises CommandError if they are invalid."""
        return parse_response(PoolsReload, await self.client.call("POST", "/v2/pools/reload"))


def find_provisioner() -> Provisioner:
    """Return the engine-provisioner of this machine. Raises CommandError if it does not run, or refuses this user."""
    path = find_socket()
    if path is None:
        hint = "Pools are configured on the machine that runs them: systemctl start llama-orch.target, then try there."
        raise CommandError("engine-provisioner does not run on this machine", hint, ExitStatus.UNAVAILABLE)
    if not os.access(path, os.W_OK):
        raise CommandError(f"{path}: permission denied", f"Run: {sudo_command()}", ExitStatus.NO_PERMISSION)
    return Provisioner(QueenClient(f"{UNIX}{path}", daemon=NAME))


def sudo_command() -> str:
    """Return this command line for root."""
    return shlex.join(["sudo", "orchctl", *sys.argv[1:]])


def write_drop_in(file: PoolFile) -> None:
    """Write a drop-in file atomically. Raises CommandError.

    The path comes from a daemon that is not root: nothing is written but NAME.toml into a directory of root or of this
    user.
    """
    path = Path(file.path)
    try:
        path.parent.mkdir(exist_ok=True)
        owner = path.parent.stat().st_uid
        if path.name != f"{file.pool_id}.toml" or path.parent.suffix != ".d" or owner not in (0, os.geteuid()):
            hint = f"Write the file yourself, then run systemctl reload engine-provisioner:\n{file.content}"
            raise CommandError(f"{path} is not a drop-in file of this user", hint, ExitStatus.NO_PERMISSION)
        replace_drop_in(path, (file.content or "").encode())
    except OSError as error:
        raise _denied("write", path, error) from error


def replace_drop_in(path: Path, content: bytes) -> None:
    """Write `content` to `path`, readable for the daemon's group if that exists and root writes. Raises OSError."""
    durable.replace(path, content, DROP_IN_MODE, group=_group_of_daemon() if os.geteuid() == 0 else None)


def _group_of_daemon() -> int | None:
    try:
        return grp.getgrnam(NAME).gr_gid
    except KeyError:  # the daemon runs from a source tree, as this user
        return None


def remove_drop_in(path: Path) -> bytes:
    """Remove a drop-in file and return its content. Raises CommandError."""
    try:
        content = path.read_bytes()
        path.unlink()
    except OSError as error:
        raise _denied("remove", path, error) from error
    return content


def _denied(verb: str, path: Path, error: OSError) -> CommandError:
    hint = f"Run: {sudo_command()}" if isinstance(error, PermissionError) else ""
    status = ExitStatus.NO_PERMISSION if isinstance(error, PermissionError) else ExitStatus.CANNOT_CREATE
    return CommandError(f"cannot {verb} {path}: {error.strerror}", hint, status)
