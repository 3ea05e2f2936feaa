"""The engine-provisioner of this machine, which only its Unix socket reaches."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient
from orchctl.errors import NOT_QUEEN_HINT, CommandError
from orchctl.locations import GROUP, UNIX

NAME = "engine-provisioner"
SOCKET = Path("/run/llama-orch/engine-provisioner.sock")
LOCAL_SOCKET = Path(".runtime") / SOCKET.name
HANDOFF_VARIABLE = "ENGINE_PROVISIONER_HANDOFF_DIR"
OTHER_RELEASE = f"Check that {NAME} is of the same release as orchctl."


def find_socket() -> Path | None:
    """Return the socket of the engine-provisioner of this machine, or of this directory; None if there is none."""
    handoffs = os.environ.get(HANDOFF_VARIABLE)
    places = [Path(handoffs).absolute().parent / SOCKET.name] if handoffs else []
    return next((path for path in (*places, SOCKET, LOCAL_SOCKET.absolute()) if _exists(path)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # a directory above it may not be searched
        return True


def provisioner_client(url: str | None) -> QueenClient:
    """Return a client for the socket of --url `url`, or else for that of this machine. Raises CommandError."""
    if url is not None and not url.startswith(UNIX):
        hint = f"This command asks {NAME} on this machine: omit --url, or use --url {UNIX}PATH."
        raise CommandError(f"{NAME} has no URL such as {url}, only a Unix socket", hint, ExitStatus.USAGE)
    path = Path(url.removeprefix(UNIX)) if url else find_socket() or SOCKET
    if _is_denied(path):
        hint = (
            f"Root and members of the group {GROUP} may: use sudo, or run usermod -aG {GROUP} $USER as root and log in "
            "again."
        )
        raise CommandError(f"no permission to use {path}", hint, ExitStatus.NO_PERMISSION)
    return QueenClient(f"{UNIX}{path}", daemon=NAME)


def _is_denied(path: Path) -> bool:
    try:
        return path.exists() and not os.access(path, os.W_OK)
    except PermissionError:  # a directory above it may not be searched
        return True


@contextmanager
def provisioner_errors() -> Iterator[None]:
    """Let hints about an unexpected answer name engine-provisioner, not queen-rbee."""
    try:
        yield
    except CommandError as error:
        if error.hint == NOT_QUEEN_HINT:
            error.hint = OTHER_RELEASE
        raise
