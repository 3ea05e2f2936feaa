"""The settings of the daemons that serve an API to others: who may ask, and whether over TLS.

`ApiSettings` is the base of queen-rbee's and pool-managerd's.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from llama_orch.settings.declaration import Var, rule
from llama_orch.settings.loading import Problem
from llama_orch.settings.shared import Common
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles
from llama_orch.settings.tokens import SECOND_TOKEN, TOKEN
from llama_orch.settings.types import Flag, HostNames, Origins, Token, Whole
from llama_orch.telemetry import events
from llama_orch.telemetry.events import Event

BODY_LIMIT = 32 << 20
"""Bytes, unless LLORCH_BODY_LIMIT says otherwise: photos in base64 have up to 25 MB."""

SETTING = "LLORCH_BODY_LIMIT"

A_FILE = "the path of a readable file"


class ApiSettings(Common):
    """What a daemon that serves an API can be told beyond what all can."""

    token: Annotated[
        Token | None,
        Var(
            TOKEN.variable,
            "Bearer token between the daemons and for clients. The same on the queen and on every node. Better kept in "
            "/etc/llama-orch/api-token, which the units pass as a credential, than in an environment file.",
            more="Make one with openssl rand -hex 32. With a token, each request needs it but those for /health, "
            "/ready and /v2/meta/; clients write Authorization: Bearer TOKEN or X-Api-Key: TOKEN. Without one, only "
            "this machine is served.",
            example="$(openssl rand -hex 32)",
            required="in CLOUD_PROFILE",
            secret=True,
            credential=TOKEN.credential,
            file=TOKEN.file,
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        Var(
            TOKEN.file,
            "File that holds the token; comes before LLORCH_API_TOKEN and after the systemd credential api-token.",
            example="/etc/llama-orch/api-token",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    second_token: Annotated[
        Token | None,
        Var(
            SECOND_TOKEN.variable,
            "A second token that requests may show, while a fleet goes over from one token to another: see TOKEN "
            "ROTATION in llama-orch(7). Better kept in /etc/llama-orch/api-token-second, which the units pass as a "
            "credential.",
            more="It is never sent to another daemon.",
            example="$(openssl rand -hex 32)",
            addition=True,
            secret=True,
            credential=SECOND_TOKEN.credential,
            file=SECOND_TOKEN.file,
        ),
    ] = None
    second_token_file: Annotated[
        Path | None,
        Var(
            SECOND_TOKEN.file,
            "File that holds the second token; comes before LLORCH_API_TOKEN_SECOND and after the systemd credential "
            "api-token-second.",
            example="/etc/llama-orch/api-token-second",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    auth_optional: Annotated[
        Flag,
        Var(
            "AUTH_OPTIONAL",
            "Excuses peers on this machine's loopback from the token.",
            more="Whoever comes by the Unix socket needs none in any case.",
            example="true",
            addition=True,
        ),
    ] = False
    allowed_hosts: Annotated[
        HostNames,
        Var(
            "LLORCH_ALLOWED_HOSTS",
            "Names under which this daemon is asked, beside localhost, IP addresses and the machine's own names.",
            more="Counts without a token, and for peers that AUTH_OPTIONAL excuses: a request that names another host "
            "is refused with 403 FORBIDDEN_HOST, so that no web page can read answers through a DNS name of its own "
            "that points to this machine. *.example.org means all names below example.org.",
            default="none",
            example="llm.example.org,*.home.arpa",
            addition=True,
        ),
    ] = ()
    allowed_origins: Annotated[
        Origins,
        Var(
            "LLORCH_ALLOWED_ORIGINS",
            "Web pages and browser extensions that may use this daemon, by their origin.",
            more="Their requests get CORS headers, never with credentials. Without a token, a request by any other "
            "page is refused with 403 FORBIDDEN_ORIGIN; with one, it needs the token, and the page cannot read the "
            "answer. SCHEME://* means all origins of a scheme, as in moz-extension://*; * alone means all pages and "
            "needs a token.",
            default="none",
            example="https://chat.example.org",
            addition=True,
        ),
    ] = ()
    body_limit: Annotated[
        Whole,
        Field(ge=1 << 20, le=256 << 20),
        Var(
            SETTING,
            "How long the body of a request may be that goes to an engine, such as a chat with photos in base64.",
            more="A longer one is refused with 413. It is counted as decoded, where a client compresses it by gzip. "
            "A large request takes up to ten times its body in memory while it is read. Requests to the daemons "
            "themselves have lower limits of their own: see LIMITS in llama-orch(7).",
            example="67108864",
            unit="bytes",
            addition=True,
        ),
    ] = BODY_LIMIT

    tls_cert: Annotated[
        Path | None,
        Var(
            CERT_FILE,
            "Certificate chain of this daemon, its own first, in PEM. With it the API is served over TLS (1.2 at "
            "least) and not in the clear; the metrics port and the Unix socket stay as they are.",
            more="Its names must be those under which others ask for this daemon, with https:// in their URLs. It is "
            "also shown to the daemons that this one asks.",
            example="/etc/llama-orch/tls.pem",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        Var(
            KEY_FILE,
            "The private key to LLORCH_TLS_CERT_FILE, in PEM, without a password.",
            more="As a credential, which only root can read on the disk, it is passed by a drop-in of the unit: "
            "LoadCredential=tls-key:/etc/llama-orch/tls.key and Environment=LLORCH_TLS_KEY_FILE=%d/tls-key.",
            example="/etc/llama-orch/tls.key",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    tls_ca: Annotated[
        Path | None,
        Var(
            CA_FILE,
            "Certificates in PEM of the CA that all daemons have theirs from. Then TLS is mutual: clients must show a "
            "certificate of it, and the daemons that this one asks at https:// are held against it.",
            more="Without it those are held against the CAs of the system. Without LLORCH_TLS_CERT_FILE it only serves "
            "to ask others. A token is wanted all the same.",
            example="/etc/llama-orch/ca.pem",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None

    @property
    def tls(self) -> TlsFiles:
        """The files that TLS is made of."""
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca)

    @rule
    def a_certificate_has_its_key(self) -> Iterator[Problem]:
        """LLORCH_TLS_CERT_FILE and LLORCH_TLS_KEY_FILE are set both or not at all."""
        yield from self.tls.unpaired()

    @rule
    def a_second_token_has_a_first(self) -> Iterator[Problem]:
        """A second token needs a first one."""
        if self.second_token and self.token is None:
            problem = f"is not set, and {SECOND_TOKEN.variable} is, which is accepted but never sent"
            yield Problem(TOKEN.variable, None, problem, "Set both, or only this one.")

    @rule
    def all_origins_need_a_token(self) -> Iterator[Problem]:
        """LLORCH_ALLOWED_ORIGINS=* needs a token."""
        if "*" in self.allowed_origins and self.token is None:
            problem = "lets every web page that is open on this machine drive the daemon, since no token is set"
            yield Problem("LLORCH_ALLOWED_ORIGINS", "*", problem, f"Set {TOKEN.variable}, or list the origins.")

    def remarks(self) -> Iterator[tuple[Event, Mapping[str, object]]]:
        """As in the base; two tokens that are the same are no reason to be away in the middle of a rotation."""
        yield from super().remarks()
        if self.second_token and self.second_token == self.token:
            yield events.SECOND_TOKEN_SAME, {"token": self.token}
