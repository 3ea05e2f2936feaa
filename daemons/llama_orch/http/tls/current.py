"""The TLS contexts in force. A reload replaces them: connections that exist go on with those that they began with."""

import os
import ssl
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import trio

from llama_orch.bell import Bell
from llama_orch.http.tls.expiry import ExpiringCertificate, describe_end, first_to_expire, wall_clock
from llama_orch.http.tls.tls import Tls
from llama_orch.service.reload import Outcome, refuse
from llama_orch.settings.loading import ConfigurationError
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles

Contents = Mapping[str, str]
"""A digest of each TLS file, by the variable that names it."""


class CurrentTls:
    """The contexts of `files`, and the certificates of which the daemon warns before they expire.

    Raises ConfigurationError, which names each unusable file. `renewed` rings when a reload has replaced the contexts.
    """

    def __init__(self, files: TlsFiles, environ: Mapping[str, str] = os.environ) -> None:
        self._files = files
        self._credentials = environ.get("CREDENTIALS_DIRECTORY")
        self._contents, self._tls, self.expiring = _load(files)
        self.renewed = Bell()

    @property
    def server(self) -> ssl.SSLContext | None:
        """The context for a new connection of a client; None for plain HTTP."""
        return self._tls.server

    @property
    def client(self) -> ssl.SSLContext | None:
        """The context for a new connection to another daemon; None for one that trusts the system's CAs."""
        return self._tls.client

    @property
    def words(self) -> str | None:
        """What the server uses, for messages; None for plain HTTP."""
        return self._tls.words

    async def reload(self) -> Outcome:
        """Read the files again, and use them for new connections if all are usable. Logs why they are not."""
        try:
            contents, tls, expiring = await trio.to_thread.run_sync(_load, self._files)
        except ConfigurationError as error:
            return refuse(*(f"{problem}{self._advice()}" for problem in error.problems))
        changed = [name for name in contents if contents[name] != self._contents.get(name)]
        if not changed:
            return Outcome()
        self._contents, self._tls, self.expiring = contents, tls, expiring
        self.renewed.ring()
        return Outcome(tuple(describe(name, self._files, expiring, wall_clock()) for name in changed))

    def _advice(self) -> str:
        """Return a hint for files that a reload cannot renew."""
        paths = (self._files.cert, self._files.key, self._files.ca)
        if not self._credentials or not any(path and path.is_relative_to(self._credentials) for path in paths):
            return ""
        return " systemd copies credentials when it starts the unit: a new one needs a restart"


def describe(variable: str, files: TlsFiles, expiring: list[ExpiringCertificate], now: datetime) -> str:
    """Return which file was read again, and when its certificate expires."""
    path = {CERT_FILE: files.cert, KEY_FILE: files.key, CA_FILE: files.ca}[variable]
    ends = [describe_end(each.ends, now) for each in expiring if each.variable == variable]
    return f"{path} ({variable}){''.join(f', which {words}' for words in ends)}"


def _load(files: TlsFiles) -> tuple[Contents, Tls, list[ExpiringCertificate]]:
    tls = Tls.of(files)
    named = {CERT_FILE: files.cert, KEY_FILE: files.key, CA_FILE: files.ca}
    contents = {variable: _digest(path) for variable, path in named.items() if path}
    return contents, tls, first_to_expire(files)


def _digest(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:  # replaced just now: the next reload finds it changed
        return ""


NO_TLS = CurrentTls(TlsFiles())
