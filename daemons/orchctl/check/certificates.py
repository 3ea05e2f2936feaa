"""Until when certificates are good, as `orchctl check` sees them: those that daemons show, and those of our files."""

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from llama_orch.http.client.connecting import connect, where
from llama_orch.http.client.upstream import UpstreamError
from llama_orch.http.tls.expiry import first_to_expire
from llama_orch.http.tls.secured import TlsStream
from llama_orch.http.tls.tls import Tls
from llama_orch.http.tls.x509 import ends_at
from llama_orch.settings.tls import TlsFiles
from orchctl.check.questions import LIMIT_S


@dataclass(frozen=True)
class Certificate:
    """Whose it is, and when it ends; `mend` is what to do then."""

    whose: str
    ends: datetime
    mend: str


async def presented(url: str, daemon: str) -> Certificate | None:
    """What `daemon` shows at `url`, accepted or not; None where it shows nothing, of which other questions tell."""
    if not url.startswith("https://"):
        return None
    try:
        origin, _parts = where(url, _accepting())
        async with await connect(origin, LIMIT_S) as wire:
            der = wire.peer_certificate if isinstance(wire, TlsStream) else None
        ends = ends_at(der or b"")
    except (UpstreamError, ValueError):
        return None
    mend = f"Put a new one in its place and restart {daemon} there: see TLS in llama-orch(7)."
    return Certificate(f"that of {daemon} at {url}", ends, mend)


def _accepting() -> ssl.SSLContext:
    """Shows our own certificate, and takes any: nothing is asked over what it makes."""
    context = Tls.of(TlsFiles.named(os.environ)).client or ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def own() -> Iterator[Certificate]:
    """Those in the files that the environment names."""
    for each in first_to_expire(TlsFiles.named(os.environ)):
        whose = f"number {each.number} of {each.path} ({each.variable})"
        yield Certificate(whose, each.ends, "Put a new one in its place: see TLS in llama-orch(7).")
