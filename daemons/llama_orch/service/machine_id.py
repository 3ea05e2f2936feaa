"""Which machine this is, without telling its machine id: sd_id128_get_machine_app_specific(3).

Owns the file `machine-id` in pool-managerd's state directory, for machines that have none of their own.
"""

import hmac
import logging
import re
import secrets
from pathlib import Path

APPLICATION = bytes.fromhex("31cd5837cf8e4b50ad704a430e2fb3f8")
"""Ours among all that derive an id from the machine's. Never changed: queens know machines by what comes of it."""
MACHINE_ID = Path("/etc/machine-id")
FILE = "machine-id"

log = logging.getLogger(__name__)


def app_specific(machine_id: bytes, application: bytes = APPLICATION) -> str:
    """The id that `application` may show of the machine, as systemd derives it: 32 hex digits, a UUID of version 4."""
    digest = bytearray(hmac.digest(machine_id, application, "sha256")[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


def understood(text: str) -> bytes | None:
    """The id in a machine-id(5) file; None where it has none, being empty or `uninitialized`."""
    text = text.strip()
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{32}", text) and text.strip("0") else None


def machine_id(state_directory: Path, etc: Path = MACHINE_ID) -> str:
    """This machine's id for the queen. Blocks; never raises for what the disk does.

    A machine without an id gets a random one, kept in `state_directory`.
    """
    return known_id(etc, state_directory / FILE) or app_specific(_made_up(state_directory / FILE))


def known_id(*files: Path) -> str | None:
    """This machine's id for the queen, of the first of `files` that has one and can be read."""
    return next((app_specific(found) for path in files if (found := _read(path))), None)


def _read(path: Path) -> bytes | None:
    try:
        return understood(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError):
        return None


def _made_up(path: Path) -> bytes:
    fresh = secrets.token_bytes(16)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        path.write_text(f"{fresh.hex()}\n")
    except OSError as error:
        log.warning(
            "this machine has no /etc/machine-id, and the one made up for it cannot be kept in %s (%s): after a "
            "restart the queen takes it for another machine; systemd-machine-id-setup mends that",
            path,
            error.strerror or error,
        )
    return fresh
