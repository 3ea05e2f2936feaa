"""The settings that several daemons have, declared once: token, logging, telemetry, listening addresses.

`Common` is the base of every daemon's settings.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from llama_orch.settings.declaration import Var
from llama_orch.settings.loading import CREDENTIAL, TOKEN, TOKEN_FILE, Settings
from llama_orch.settings.types import Flag, LogLevels, Token, Url
from llama_orch.telemetry.levels import parse_levels
from llama_orch.telemetry.records import Format

RUNTIME_DIRECTORY = "/run/llama-orch/engines"
FORMAT_VARIABLE = "LLAMA_ORCH_LOG_FORMAT"
DEFAULT_RUNTIME_DIRECTORY = Path(".runtime/engines")

TokenField = Annotated[
    Token | None,
    Var(
        TOKEN,
        "Bearer token between the daemons and for clients. The same on the queen and on every node. Better kept in "
        "/etc/llama-orch/api-token, which the units pass as a credential, than in an environment file.",
        more="Make one with openssl rand -hex 32. With a token, each request needs it but those for /health, /ready "
        "and /v2/meta/; clients write Authorization: Bearer TOKEN or X-Api-Key: TOKEN. Without one, only this machine "
        "is served.",
        example="$(openssl rand -hex 32)",
        required="in CLOUD_PROFILE",
        secret=True,
        credential=CREDENTIAL,
        file=TOKEN_FILE,
    ),
]
TokenFileField = Annotated[
    Path | None,
    Var(
        TOKEN_FILE,
        "File that holds the token; comes before LLORCH_API_TOKEN and after the systemd credential api-token.",
        example="/etc/llama-orch/api-token",
        allowed="the path of a readable file",
        addition=True,
    ),
]
AuthOptionalField = Annotated[
    Flag,
    Var(
        "AUTH_OPTIONAL",
        "Excuses peers on this machine's loopback from the token.",
        more="Whoever comes by the Unix socket needs none in any case.",
        example="true",
        addition=True,
    ),
]


class Common(Settings):
    """What every daemon can be told."""

    otlp_endpoint: Annotated[
        Url | None,
        Var(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OpenTelemetry collector (OTLP) for traces. This release checks the URL and sends no traces yet.",
            example="http://tempo:4317",
        ),
    ] = None
    log_levels: Annotated[
        LogLevels,
        Var(
            "RUST_LOG",
            "Verbosity of the log: a level, and levels of single targets after commas.",
            more="A target is a daemon or the beginning of one of its modules' names; -, _ and :: are taken as people "
            "write them, as in warn,pool_managerd::handoff=trace. Where several fit, the longest counts. Modules that "
            "the daemons share (llama_orch) are a part of each daemon, too.",
            example="info,queen-rbee=debug",
        ),
    ] = Field(default_factory=lambda: parse_levels("info"))
    log_format: Annotated[
        Format,
        Var(
            FORMAT_VARIABLE,
            "How log records are written. auto: to the journal under systemd, as text on a terminal, as JSON lines "
            "elsewhere.",
            example="json",
            addition=True,
        ),
    ] = "auto"


def metrics_port_variable(default: int) -> Var:
    """The declaration of PROMETHEUS_METRICS_PORT for a daemon whose default is `default`."""
    return Var(
        "PROMETHEUS_METRICS_PORT",
        "Port that serves /metrics alone, without a token, on the host of the bind address.",
        example=str(default),
        unit="a port",
    )
