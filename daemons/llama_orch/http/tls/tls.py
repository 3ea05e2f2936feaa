"""TLS contexts from the settings: one for the API's server, one for the client.

TLS 1.2 or later, HTTP/1.1 only. With a CA both are mutual: clients and servers must present a certificate of that CA.
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
"""With it an encrypted key fails to load; otherwise OpenSSL would ask for its password on the terminal."""
PRIVATE_KEY = b"PRIVATE KEY-----"
"""Part of the first and last line of every private key in PEM."""


@dataclass(frozen=True)
class Tls:
    """The TLS contexts of a daemon.

    `server` is None if the API is served over plain HTTP. `client` is None if the system's CAs are trusted, which the
    HTTP client loads on first use.
    """

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None

    @property
    def words(self) -> str | None:
        """What the server uses, for messages; None for plain HTTP."""
        if self.server is None:
            return None
        return "TLS, and requires a client certificate" if self.server.verify_mode is ssl.CERT_REQUIRED else "TLS"

    @classmethod
    def of(cls, files: TlsFiles) -> Self:
        """Return the contexts for these files. Raises ConfigurationError, which names each unusable file."""
        if problems := list(_problems(files)):
            raise ConfigurationError(problems)
        return cls(_server(files), _client(files))


CLEAR = Tls()


def check(settings: ApiSettings) -> None:
    """Check before the start that the files are usable. Raises ConfigurationError."""
    Tls.of(settings.tls)


def _server(files: TlsFiles) -> ssl.SSLContext | None:
    if not (files.cert and files.key):
        return None
    from hypercorn.config import Config  # only servers need it; orchctl starts faster without

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
        hint = "Make it readable by the daemon's user; see TLS in llama-orch(7)."
        yield Problem(variable, str(path), f"cannot be read ({error.strerror or error})", hint)


def _key(path: Path | None) -> Iterator[Problem]:
    """Check a key without its certificate."""
    if found := list(_unreadable(KEY_FILE, path)):
        yield from found
        return
    pem = path.read_bytes() if path else PRIVATE_KEY
    if PRIVATE_KEY not in pem:
        yield _bad_key(path, "holds no usable private key (no PEM block)")
    elif b"ENCRYPTED" in pem:
        yield _bad_key(path, "holds no usable private key (it has a password)")


def _bad_key(path: Path | None, problem: str) -> Problem:
    return Problem(KEY_FILE, str(path), problem, "It must be the key of the certificate, in PEM, without a password.")


def _certificates(variable: str, path: Path | None) -> Iterator[Problem]:
    if found := list(_unreadable(variable, path)):
        yield from found
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path) if path else None
    except ssl.SSLError as error:
        hint = "It must hold PEM certificates; a chain starts with the daemon's own."
        yield Problem(variable, str(path), f"holds no usable certificate ({_openssl_text(error)})", hint)


def _mismatch(cert: Path, key: Path) -> Iterator[Problem]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, NO_PASSWORD)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is not the key of the first certificate in {cert} ({CERT_FILE})"
        else:
            problem = f"holds no usable private key ({_openssl_text(error)})"
        yield _bad_key(key, problem)


def _openssl_text(error: ssl.SSLError) -> str:
    """Return OpenSSL's text without the source location."""
    text = error.reason or re.sub(r"^\[\w+\] | \(_ssl.*\)$", "", error.strerror or str(error))
    return text.replace("_", " ").lower()
