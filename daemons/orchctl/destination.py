"""Which queen orchctl asks, and with which token: --url, the environment, the Unix socket, or the default port."""

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from llama_orch.addresses import http_url
from llama_orch.http.tls.tls import Tls
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.loading import ConfigurationError
from llama_orch.settings.tls import TlsFiles
from llama_orch.settings.tokens import TOKEN
from orchctl.client import UNIX, URL_VARIABLE, QueenClient
from orchctl.errors import CommandError

DEFAULT_URL = "http://127.0.0.1:8080"
SOCKET = Path("/run/llama-orch/queen-rbee.sock")
NODE_SOCKET = Path("/run/llama-orch/pool-managerd.sock")
GROUP = "llama-orch"


def from_environment(url: str | None) -> QueenClient:
    """The queen of `url`, of ORCHESTRATORD_URL, or of this machine. Raises CommandError for what cannot be used."""
    found = url_of(url, os.environ, SOCKET)
    if found.startswith(UNIX):
        _check_socket(found)
    elif not _is_url(found):
        hint = f"It must be of the form http://HOST:PORT or https://HOST:PORT, as in {DEFAULT_URL}, or {UNIX}PATH."
        raise CommandError(f"{found} is no URL of a queen", hint, ExitStatus.USAGE)
    advice = "" if found.startswith(UNIX) else socket_advice(SOCKET)
    return QueenClient(found.rstrip("/"), _token(), _tls(), socket_advice=advice)


def url_of(url: str | None, environ: Mapping[str, str], socket: Path) -> str:
    """The first of: `url`, ORCHESTRATORD_URL, `socket` if this process may connect to it, the default port."""
    return url or environ.get(URL_VARIABLE) or usable(socket) or DEFAULT_URL


def usable(socket: Path) -> str | None:
    """The unix: URL of `socket`, if it exists and its mode lets this process connect."""
    return f"{UNIX}{socket}" if _exists(socket) and os.access(socket, os.W_OK) else None


def socket_advice(socket: Path) -> str:
    """How to ask the queen of this machine without a token; empty where there is no `socket`."""
    if usable(socket):
        return f"Over {socket} no token is needed: leave out --url and {URL_VARIABLE}, or give --url {UNIX}{socket}."
    if _exists(socket):
        return f"Root and the members of the group {GROUP} need no token: orchctl asks over {socket} then."
    return ""


def _exists(socket: Path) -> bool:
    try:
        return socket.is_socket()
    except OSError:  # its directory is closed to us
        return False


def _check_socket(url: str) -> None:
    path = url.removeprefix(UNIX)
    if not path or not url.isprintable():
        raise CommandError(f"{url} names no socket", f"As in {UNIX}{SOCKET}.", ExitStatus.USAGE)


def _tls() -> ssl.SSLContext | None:
    """What the files that the environment names are good for. Raises CommandError."""
    try:
        return Tls.of(TlsFiles.named(os.environ)).client
    except ConfigurationError as error:
        message = "\n".join(map(str, error.problems))
        raise CommandError(message, "See TLS in llama-orch(7).", ExitStatus.CONFIG) from error


def _is_url(text: str) -> bool:
    try:
        return text.isascii() and text.isprintable() and not set(text) & set(" ?#@") and bool(http_url(text))
    except ValueError:
        return False


def _token() -> str | None:
    try:
        token = TOKEN.read(os.environ)
    except OSError as error:
        message = f"{TOKEN.file}: {error.filename}: {error.strerror}"
        raise CommandError(message, "Make it readable, or unset it.", ExitStatus.NO_INPUT) from error
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        message = f"the token of {TOKEN.file if os.environ.get(TOKEN.file) else TOKEN.variable} cannot be one"
        raise CommandError(message, "A token is printable ASCII without blanks, in one line.", ExitStatus.CONFIG)
    return token
