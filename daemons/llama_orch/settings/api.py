"""Settings of the daemons that serve an API: access, body limit and TLS.

`ApiSettings` is the base of the settings of queen-rbee and pool-managerd.
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
from llama_orch.settings.types import Flag, HostNames, Integer, Origins, Token
from llama_orch.telemetry.events import service as events
from llama_orch.telemetry.events.event import Event

BODY_LIMIT = 32 << 20
"""Default of LLORCH_BODY_LIMIT in bytes; photos in base64 have up to 25 MB."""

SETTING = "LLORCH_BODY_LIMIT"

A_FILE = "the path of a readable file"


class ApiSettings(Common):
    """The settings of a daemon that serves an API."""

    token: Annotated[
        Token | None,
        Var(
            TOKEN.variable,
            "Bearer token for clients and between daemons, the same on the queen and on every node. Prefer "
            "/etc/llama-orch/api-token, which the units pass as a credential, to an environment file.",
            more="Create one with openssl rand -hex 32. With a token, every request needs it except those for /health, "
            "/ready and /v2/meta/, and for the files of queen-rbee's page and the manual. Clients send "
            "Authorization: Bearer TOKEN or X-Api-Key: TOKEN. Without a token, only requests from this machine are "
            "served.",
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
            "File with the token. It takes precedence over LLORCH_API_TOKEN, and the systemd credential "
            "api-token over both.",
            example="/etc/llama-orch/api-token",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    second_token: Annotated[
        Token | None,
        Var(
            SECOND_TOKEN.variable,
            "A second token that requests may use during a token rotation: see TOKEN ROTATION in llama-orch(7). Prefer "
            "/etc/llama-orch/api-token-second, which the units pass as a credential.",
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
            "Whether requests from loopback need no token.",
            more="Requests over the Unix socket never need one.",
            example="true",
            addition=True,
        ),
    ] = False
    allowed_hosts: Annotated[
        HostNames,
        Var(
            "LLORCH_ALLOWED_HOSTS",
            "Host names of this daemon, in addition to localhost, IP addresses and the machine's own names.",
            more="A request for another host name is refused with 403 FORBIDDEN_HOST if no token is set, or if "
            "AUTH_OPTIONAL lets it in. So no web page can read answers through its own DNS name that points to this "
            "machine. *.example.org means all names below example.org.",
            default="none",
            example="llm.example.org,*.home.arpa",
            addition=True,
        ),
    ] = ()
    allowed_origins: Annotated[
        Origins,
        Var(
            "LLORCH_ALLOWED_ORIGINS",
            "Origins of the web pages and browser extensions that may use this daemon.",
            more="Answers to them have CORS headers, without credentials. If no token is set, requests from other "
            "pages are refused with 403 FORBIDDEN_ORIGIN. Otherwise they need the token, and the page cannot read the "
            "answer. SCHEME://* means all origins of a scheme, for example moz-extension://*. * means all pages and "
            "requires a token.",
            default="none",
            example="https://chat.example.org",
            addition=True,
        ),
    ] = ()
    body_limit: Annotated[
        Integer,
        Field(ge=1 << 20, le=256 << 20),
        Var(
            SETTING,
            "Largest body of a request for an engine, such as a chat with photos in base64.",
            more="A larger one is refused with 413. A body compressed with gzip is measured after decoding. While a "
            "large request is read, it takes up to ten times the size of its body in memory. Requests that do not go "
            "to an engine have lower limits: see LIMITS in llama-orch(7).",
            example="67108864",
            unit="bytes",
            addition=True,
        ),
    ] = BODY_LIMIT

    tls_cert: Annotated[
        Path | None,
        Var(
            CERT_FILE,
            "Certificate chain of this daemon in PEM, its own certificate first. If it is set, the API is served only "
            "over TLS (1.2 or later). The metrics port and the Unix socket do not change.",
            more="The certificate must be valid for the host name by which others address this daemon, with https:// "
            "in their URLs. It is also the client certificate for requests to other daemons.",
            example="/etc/llama-orch/tls.pem",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        Var(
            KEY_FILE,
            "Private key of LLORCH_TLS_CERT_FILE in PEM, without a password.",
            more="To keep it readable only by root, pass it as a credential with a drop-in of the unit: "
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
            "CA certificates in PEM. If they are set, TLS is mutual: clients must present a certificate of this CA, "
            "and this daemon accepts only other daemons with one.",
            more="If they are not set, the system's CAs are used to verify other daemons. Without LLORCH_TLS_CERT_FILE "
            "this CA is used only for requests to other daemons. TLS does not replace the token.",
            example="/etc/llama-orch/ca.pem",
            allowed=A_FILE,
            addition=True,
        ),
    ] = None

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca)

    @rule
    def a_certificate_has_its_key(self) -> Iterator[Problem]:
        """LLORCH_TLS_CERT_FILE and LLORCH_TLS_KEY_FILE must be set together."""
        yield from self.tls.unpaired()

    @rule
    def a_second_token_has_a_first(self) -> Iterator[Problem]:
        """LLORCH_API_TOKEN_SECOND requires LLORCH_API_TOKEN."""
        if self.second_token and self.token is None:
            problem = f"is not set, but {SECOND_TOKEN.variable} is, which is never sent to other daemons"
            yield Problem(TOKEN.variable, None, problem, "Set both, or only the first.")

    @rule
    def all_origins_need_a_token(self) -> Iterator[Problem]:
        """LLORCH_ALLOWED_ORIGINS=* requires a token."""
        if "*" in self.allowed_origins and self.token is None:
            problem = "lets every web page open on this machine use the daemon, because no token is set"
            yield Problem("LLORCH_ALLOWED_ORIGINS", "*", problem, f"Set {TOKEN.variable}, or list the origins.")

    def remarks(self) -> Iterator[tuple[Event, Mapping[str, object]]]:
        """Also report two equal tokens, which must not stop the daemon in the middle of a token rotation."""
        yield from super().remarks()
        if self.second_token and self.second_token == self.token:
            yield events.SECOND_TOKEN_SAME, {"token": self.token}
