"""The settings that several daemons have, declared once: logging, telemetry, listening addresses.

`Common` is the base of every daemon's settings.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from llama_orch.settings.declaration import Var
from llama_orch.settings.loading import Settings
from llama_orch.settings.types import LogLevels, Url
from llama_orch.telemetry.levels import parse_levels
from llama_orch.telemetry.records import Format

RUNTIME_DIRECTORY = "/run/llama-orch/engines"
FORMAT_VARIABLE = "LLAMA_ORCH_LOG_FORMAT"
DEFAULT_RUNTIME_DIRECTORY = Path(".runtime/engines")
RELATIVE = (
    "A relative path is below the working directory. For the packaged services that is /var/lib/llama-orch, where "
    ".runtime leads to /run/llama-orch, so that .runtime/engines is what the packages set. Besides, they may write to "
    "/var/lib/llama-orch/engines; any other directory needs ReadWritePaths= in a drop-in of pool-managerd.service and "
    "of engine-provisioner.service."
)


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
