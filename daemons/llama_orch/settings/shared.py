"""Settings of several daemons: logging, telemetry, metrics port. `Common` is the base of every daemon's settings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from llama_orch.settings.declaration import Var
from llama_orch.settings.tracing import TracingSettings
from llama_orch.settings.types import LogLevels
from llama_orch.telemetry.levels import parse_levels
from llama_orch.telemetry.records import Format

RUNTIME_DIRECTORY = "/run/llama-orch/engines"
FORMAT_VARIABLE = "LLAMA_ORCH_LOG_FORMAT"
DEFAULT_RUNTIME_DIRECTORY = Path(".runtime/engines")
RELATIVE = (
    "A relative path starts at the working directory. For the packaged services that is /var/lib/llama-orch, where "
    ".runtime is a link to /run/llama-orch, so that .runtime/engines is the directory that the packages set. The "
    "services may also write to /var/lib/llama-orch/engines; any other directory needs ReadWritePaths= in a drop-in of "
    "pool-managerd.service and of engine-provisioner.service."
)


class Common(TracingSettings):
    """The settings of every daemon."""

    log_levels: Annotated[
        LogLevels,
        Var(
            "RUST_LOG",
            "Log level: one level, optionally followed by levels of single targets, separated by commas.",
            more="A target is a daemon or the beginning of a module name of it. Targets may be written with -, _ and "
            "::, for example warn,pool_managerd::handoff=trace. The longest matching target applies. The shared "
            "modules (llama_orch) also belong to each daemon.",
            example="info,queen-rbee=debug",
        ),
    ] = Field(default_factory=lambda: parse_levels("info"))
    log_format: Annotated[
        Format,
        Var(
            FORMAT_VARIABLE,
            "Format of log records. auto means the journal under systemd, text on a terminal, and JSON lines "
            "elsewhere.",
            example="json",
            addition=True,
        ),
    ] = "auto"


def metrics_port_variable(default: int) -> Var:
    """Return the declaration of PROMETHEUS_METRICS_PORT for a daemon with the default port `default`."""
    return Var(
        "PROMETHEUS_METRICS_PORT",
        "Port that serves only /metrics, without a token, on the host of the bind address.",
        example=str(default),
        unit="a port",
    )
