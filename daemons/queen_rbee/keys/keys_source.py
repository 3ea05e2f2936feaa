"""Where the keys come from: the credential keys.toml, else the file of ORCHESTRATORD_KEYS_FILE. Read again at a reload.

The file is safe to lose: without it there are no keys, so that their secrets open nothing.
"""

from collections.abc import Mapping
from pathlib import Path

import trio

from llama_orch.contracts.keys import KeySpec
from llama_orch.keys.keys_file import CREDENTIAL, KeysFileError, parse, read
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.reload import Outcome, refuse
from queen_rbee.keys.keyring import Keyring


class KeysSource:
    """`load` at the start, `reload` later; both replace the keys of `keyring`, or change nothing."""

    def __init__(self, keyring: Keyring, path: Path | None, environ: Mapping[str, str]) -> None:
        self._keyring = keyring
        self._path = source_path(path, environ)

    async def load(self) -> None:
        """Raises StartupError if the file is unusable: the daemon does not start without its keys."""
        try:
            keys = await self._read()
        except KeysFileError as error:
            hint = "Fix the file: see llama-orch-keys(5)."
            raise StartupError("; ".join(error.problems), hint, ExitStatus.CONFIG) from error
        self._keyring.replace(keys)

    async def reload(self) -> Outcome:
        """Apply the file as it is now. While it is unusable, the keys stay as they are; logs why it is."""
        try:
            keys = await self._read()
        except KeysFileError as error:
            return refuse(*error.problems)
        return Outcome(tuple(self._keyring.replace(keys)))

    async def _read(self) -> tuple[KeySpec, ...]:
        return await trio.to_thread.run_sync(_keys_in, self._path) if self._path else ()


def _keys_in(path: Path) -> tuple[KeySpec, ...]:
    raw = read(path)
    return () if raw is None else parse(raw, path)


def source_path(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: the credential if there is one, else `path`."""
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory) / CREDENTIAL
        if credential.exists():
            return credential
    return path
