"""The queen that orchctl uses: from --url, the environment, the Unix socket or the default port, with its token."""

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from llama_orch.addresses import http_url
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles
from llama_orch.settings.tokens import TOKEN
from orchctl.client import QueenClient
from orchctl.errors import CommandError
from orchctl.locations import DEFAULT_URL, GROUP, QUEEN_SOCKET, UNIX, URL_VARIABLE


def client_for(url: str | None) -> QueenClient:
    """Return a client for --url `url`, or for the queen that the environment selects. Raises CommandError."""
    selected = select_url(url, os.environ, QUEEN_SOCKET)
    if selected.startswith(UNIX):
        _check_socket_url(selected)
    elif not _is_http_url(selected):
        hint = f"Use http://HOST:PORT, https://HOST:PORT or {UNIX}PATH, for example {DEFAULT_URL}."
        raise CommandError(f"invalid queen URL: {selected}", hint, ExitStatus.USAGE)
    advice = "" if selected.startswith(UNIX) else socket_advice(QUEEN_SOCKET)
    return QueenClient(selected.rstrip("/"), _token(), _tls_context(), socket_advice=advice)


def select_url(url: str | None, environ: Mapping[str, str], socket: Path) -> str:
    """Return the first of: `url`, ORCHESTRATORD_URL, `socket` if this process may connect to it, DEFAULT_URL."""
    return url or environ.get(URL_VARIABLE) or usable_socket_url(socket) or DEFAULT_URL


def usable_socket_url(socket: Path) -> str | None:
    """Return the unix: URL of `socket` if it exists and its mode lets this process connect."""
    return f"{UNIX}{socket}" if _is_socket(socket) and os.access(socket, os.W_OK) else None


def socket_advice(socket: Path) -> str:
    """Return how to reach the local queen without a token; empty if `socket` does not exist."""
    if usable_socket_url(socket):
        return f"{socket} needs no token: omit --url and unset {URL_VARIABLE}, or use --url {UNIX}{socket}."
    if _is_socket(socket):
        return f"Root and members of the group {GROUP} need no token: for them, orchctl connects to {socket}."
    return ""


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:  # no permission to search its directory
        return False


def _check_socket_url(url: str) -> None:
    path = url.removeprefix(UNIX)
    if not path or not url.isprintable():
        raise CommandError(f"invalid socket path: {url}", f"For example: {UNIX}{QUEEN_SOCKET}", ExitStatus.USAGE)


def _tls_context() -> ssl.SSLContext | None:
    """Raises CommandError if a TLS file named in the environment cannot be used."""
    if not any(os.environ.get(name) for name in (CA_FILE, CERT_FILE, KEY_FILE)):
        return None
    # these import all settings: half the time that a command takes to start
    from llama_orch.http.tls.tls import Tls
    from llama_orch.settings.loading import ConfigurationError

    try:
        return Tls.of(TlsFiles.named(os.environ)).client
    except ConfigurationError as error:
        message = "\n".join(map(str, error.problems))
        raise CommandError(message, "See TLS in llama-orch(7).", ExitStatus.CONFIG) from error


def _is_http_url(text: str) -> bool:
    try:
        return text.isascii() and text.isprintable() and not set(text) & set(" ?#@") and bool(http_url(text))
    except ValueError:
        return False


def _token() -> str | None:
    """Raises CommandError if the token cannot be read or is malformed."""
    try:
        token = TOKEN.read(os.environ)
    except OSError as error:
        message = f"cannot read {TOKEN.file}: {error.filename}: {error.strerror}"
        raise CommandError(message, "Make the file readable, or unset the variable.", ExitStatus.NO_INPUT) from error
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        source = TOKEN.file if os.environ.get(TOKEN.file) else TOKEN.variable
        hint = "A token is one line of printable ASCII without spaces."
        raise CommandError(f"invalid token in {source}", hint, ExitStatus.CONFIG)
    return token
