"""Identify this machine without revealing its machine id: sd_id128_get_machine_app_specific(3).

Owns the file `machine-id` in pool-managerd's state directory, for machines without /etc/machine-id.
"""

import hmac
import logging
import re
import secrets
from pathlib import Path

APPLICATION = bytes.fromhex("31cd5837cf8e4b50ad704a430e2fb3f8")
"""The application id of llama-orch. It must not change, because queens identify machines by the derived id."""
MACHINE_ID = Path("/etc/machine-id")
FILE = "machine-id"

log = logging.getLogger(__name__)


def app_specific(machine_id: bytes, application: bytes = APPLICATION) -> str:
    """Derive the machine's id for `application` as systemd does: 32 hex digits, a version 4 UUID."""
    digest = bytearray(hmac.digest(machine_id, application, "sha256")[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


def parse(text: str) -> bytes | None:
    """Parse a machine-id(5) file; return None if it is empty or `uninitialized`."""
    text = text.strip()
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{32}", text) and text.strip("0") else None


def machine_id(state_directory: Path, etc: Path = MACHINE_ID) -> str:
    """Return this machine's id for the queen. Blocks; disk errors do not raise.

    A machine without an id gets a random one, stored in `state_directory`.
    """
    return known_id(etc, state_directory / FILE) or app_specific(_generate(state_directory / FILE))


def known_id(*files: Path) -> str | None:
    """Return this machine's id for the queen from the first of `files` that has one, or None."""
    return next((app_specific(found) for path in files if (found := _read(path))), None)


def _read(path: Path) -> bytes | None:
    try:
        return parse(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError):
        return None


def _generate(path: Path) -> bytes:
    fresh = secrets.token_bytes(16)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        path.write_text(f"{fresh.hex()}\n")
    except OSError as error:
        log.warning(
            "this machine has no /etc/machine-id, and a generated id cannot be saved in %s: %s; after a restart the "
            "queen will treat it as another machine (run systemd-machine-id-setup)",
            path,
            error.strerror or error,
        )
    return fresh
