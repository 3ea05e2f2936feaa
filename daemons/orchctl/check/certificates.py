"""Expiry of certificates: those that daemons present, and those in the files that the environment names."""

import os
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from llama_orch.http.client.connecting import connect, where
from llama_orch.http.client.upstream import UpstreamError
from llama_orch.http.tls.expiry import Validity, describe_end, first_to_expire, validity
from llama_orch.http.tls.secured import TlsStream
from llama_orch.http.tls.tls import Tls
from llama_orch.http.tls.x509 import ends_at
from llama_orch.settings.tls import TlsFiles
from orchctl.check.findings import Finding, ok, problem, warning
from orchctl.check.queries import LIMIT_S

SUBJECT = "certificate"


@dataclass(frozen=True)
class Certificate:
    """A certificate's origin, its end of validity, and how to replace it."""

    origin: str
    ends: datetime
    advice: str


async def presented_certificate(url: str, daemon: str) -> Certificate | None:
    """Return the certificate that `daemon` presents at `url`, valid or not; None without TLS or connection."""
    if not url.startswith("https://"):
        return None
    try:
        origin, _parts = where(url, _context_without_verification())
        async with await connect(origin, LIMIT_S) as connection:
            der = connection.peer_certificate if isinstance(connection, TlsStream) else None
        ends = ends_at(der or b"")
    except (UpstreamError, ValueError):
        return None
    advice = f"Replace the certificate there and restart {daemon}: see TLS in llama-orch(7)."
    return Certificate(f"{daemon} at {url}", ends, advice)


def _context_without_verification() -> ssl.SSLContext:
    """Return a context that accepts any certificate; no request is sent over its connections."""
    context = Tls.of(TlsFiles.named(os.environ)).client or ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def own_certificates() -> Iterator[Certificate]:
    for each in first_to_expire(TlsFiles.named(os.environ)):
        origin = f"number {each.number} in {each.path} ({each.variable})"
        yield Certificate(origin, each.ends, "Replace the certificate: see TLS in llama-orch(7).")


def certificate_findings(certificates: Sequence[Certificate], now: datetime) -> Iterator[Finding]:
    for certificate in certificates:
        text = f"{certificate.origin} {describe_end(certificate.ends, now)}"
        match validity(certificate.ends, now):
            case Validity.GOOD:
                yield ok(SUBJECT, text)
            case Validity.ENDING:
                yield warning(SUBJECT, text, certificate.advice)
            case Validity.ENDED:
                yield problem(SUBJECT, text, certificate.advice)
