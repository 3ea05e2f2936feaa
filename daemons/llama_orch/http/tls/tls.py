"""TLS as settings want it: the context with which an API is served, and the one with which others are asked.

TLS 1.2 at least, HTTP/1.1 only. With a CA both are mutual: whoever asks or is asked shows a certificate of that CA.
"""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from llama_orch.settings.api import ApiSettings
from llama_orch.settings.loading import ConfigurationError, Problem
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles

ALPN = ["http/1.1"]
NO_PASSWORD = ""
"""An encrypted key is refused; OpenSSL would ask the terminal for its password."""
PRIVATE_KEY = b"PRIVATE KEY-----"
"""What each kind of private key begins and ends with in PEM."""


@dataclass(frozen=True)
class Tls:
    """`server` is None where the API is served in the clear; `client` where the system's CAs are what there is, which
    the HTTP client loads itself when first it needs them."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None

    @property
    def words(self) -> str | None:
        """Over what the API is served, where that is not plain HTTP."""
        if self.server is None:
            return None
        return "TLS, and wants a client certificate" if self.server.verify_mode is ssl.CERT_REQUIRED else "TLS"

    @classmethod
    def of(cls, files: TlsFiles) -> Self:
        """The contexts for these files. Raises ConfigurationError, which names each that cannot be used."""
        if problems := list(_problems(files)):
            raise ConfigurationError(problems)
        return cls(_server(files), _client(files))


CLEAR = Tls()


def check(settings: ApiSettings) -> None:
    """Whether the files can be used, before anything is started. Raises ConfigurationError."""
    Tls.of(settings.tls)


def _server(files: TlsFiles) -> ssl.SSLContext | None:
    if not (files.cert and files.key):
        return None
    from hypercorn.config import Config  # for servers only: orchctl starts sooner without it

    config = Config()
    config.certfile, config.keyfile, config.keyfile_password = str(files.cert), str(files.key), NO_PASSWORD
    if files.ca:
        config.ca_certs, config.verify_mode = str(files.ca), ssl.CERT_REQUIRED
    config.alpn_protocols = ALPN
    return config.create_ssl_context()


def _client(files: TlsFiles) -> ssl.SSLContext | None:
    if not (files.ca or files.cert):
        return None
    context = ssl.create_default_context(cafile=files.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    if files.cert:
        context.load_cert_chain(files.cert, files.key, NO_PASSWORD)
    return context


def _problems(files: TlsFiles) -> Iterator[Problem]:
    found = [*files.unpaired(), *_certificates(CERT_FILE, files.cert), *_certificates(CA_FILE, files.ca)]
    found += _key(files.key)
    yield from found
    if files.cert and files.key and not found:
        yield from _mismatch(files.cert, files.key)


def _unreadable(variable: str, path: Path | None) -> Iterator[Problem]:
    if path is None:
        return
    try:
        path.read_bytes()
    except OSError as error:
        mend = "Make it readable for the daemon's user; see TLS in llama-orch(7)."
        yield Problem(variable, str(path), f"cannot be read ({error.strerror or error})", mend)


def _key(path: Path | None) -> Iterator[Problem]:
    """What can be told of a key without its certificate."""
    if found := list(_unreadable(KEY_FILE, path)):
        yield from found
        return
    pem = path.read_bytes() if path else PRIVATE_KEY
    if PRIVATE_KEY not in pem:
        yield _no_key(path, "holds no private key that can be used (there is none in it)")
    elif b"ENCRYPTED" in pem:
        yield _no_key(path, "holds no private key that can be used (it has a password)")


def _no_key(path: Path | None, problem: str) -> Problem:
    return Problem(KEY_FILE, str(path), problem, "It must be the certificate's own key, PEM, without a password.")


def _certificates(variable: str, path: Path | None) -> Iterator[Problem]:
    if found := list(_unreadable(variable, path)):
        yield from found
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path) if path else None
    except ssl.SSLError as error:
        mend = "It must hold PEM certificates: a chain begins with the daemon's own."
        yield Problem(variable, str(path), f"holds no certificate that can be used ({_words(error)})", mend)


def _mismatch(cert: Path, key: Path) -> Iterator[Problem]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, NO_PASSWORD)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is not the key of the first certificate in {cert} ({CERT_FILE})"
        else:
            problem = f"holds no private key that can be used ({_words(error)})"
        yield _no_key(key, problem)


def _words(error: ssl.SSLError) -> str:
    """As OpenSSL has it, without the place in its source."""
    told = error.reason or re.sub(r"^\[\w+\] | \(_ssl.*\)$", "", error.strerror or str(error))
    return told.replace("_", " ").lower()
