"""The settings that several daemons have, declared once: token, logging, telemetry, listening addresses.

`Common` is the base of every daemon's settings.
"""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from llama_orch.settings.declaration import Var
from llama_orch.settings.loading import TOKEN, TOKEN_FILE, Settings
from llama_orch.settings.types import Flag, LogLevels, Token, http_url
from llama_orch.telemetry.levels import parse_levels
from llama_orch.telemetry.records import Format

RUNTIME_DIRECTORY = "/run/llama-orch/engines"
DEFAULT_RUNTIME_DIRECTORY = Path(".runtime/engines")

TokenField = Annotated[
    Token | None,
    Var(
        TOKEN,
        "Bearer token between the daemons and for clients. The same on the queen and on every node. Better kept in "
        "/etc/llama-orch/api-token, which the units pass as a credential, than in an environment file.",
        example="$(openssl rand -hex 32)",
        allowed="16 to 512 printable ASCII characters without blanks",
        profile="any",
        default="(none)",
        required="in CLOUD_PROFILE",
        secret=True,
    ),
]
TokenFileField = Annotated[
    Path | None,
    Var(
        TOKEN_FILE,
        "File that holds the token; comes before LLORCH_API_TOKEN and after the systemd credential api-token.",
        example="/etc/llama-orch/api-token",
        allowed="the path of a readable file",
        default="(none)",
        addition=True,
    ),
]
AuthOptionalField = Annotated[
    Flag,
    Var(
        "AUTH_OPTIONAL",
        "Excuses peers on this machine's loopback from the token.",
        example="true",
        allowed="true, false, 1 or 0",
        addition=True,
    ),
]


class Common(Settings):
    """What every daemon can be told."""

    otlp_endpoint: Annotated[
        Annotated[str, AfterValidator(http_url)] | None,
        Var(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OpenTelemetry collector (OTLP) for traces. This release checks the URL and sends no traces yet.",
            example="http://tempo:4317",
            allowed="an http:// or https:// URL",
            default="(none)",
        ),
    ] = None
    log_levels: Annotated[
        LogLevels,
        Var(
            "RUST_LOG",
            "Verbosity of the log: a level, and levels of single targets after commas.",
            example="info,queen-rbee=debug",
            allowed="trace, debug, info, warn, error or off, and TARGET=LEVEL after commas",
        ),
    ] = Field(default_factory=lambda: parse_levels("info"))
    log_format: Annotated[
        Format,
        Var(
            "LLAMA_ORCH_LOG_FORMAT",
            "How log records are written. auto: to the journal under systemd, as text on a terminal, as JSON lines "
            "elsewhere.",
            example="json",
            allowed="auto, journal, json or pretty",
            addition=True,
        ),
    ] = "auto"


def metrics_port_variable(default: int) -> Var:
    """The declaration of PROMETHEUS_METRICS_PORT for a daemon whose default is `default`."""
    return Var(
        "PROMETHEUS_METRICS_PORT",
        "Port that serves /metrics alone, without a token, on the host of the bind address.",
        example=str(default),
        allowed="a port from 1 to 65535",
    )
