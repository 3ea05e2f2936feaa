"""pool-managerd's settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from llama_orch.addresses import Host
from llama_orch.contracts.base import NODE_ID_RESERVED
from llama_orch.contracts.nodes import NodeId, node_address
from llama_orch.settings import Address, Example, Flag, Integer, Problem, Var, rule
from llama_orch.settings.api import ApiSettings
from llama_orch.settings.shared import (
    DEFAULT_RUNTIME_DIRECTORY,
    RELATIVE,
    RUNTIME_DIRECTORY,
    metrics_port_variable,
)
from llama_orch.settings.types import BaseUrl, MacList


class PoolManagerSettings(ApiSettings):
    """pool-managerd's settings. Immutable. Names of durations end in their unit."""

    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "HOME_PROFILE, on the queen's machine:",
            {
                "POOL_MANAGERD_BIND_ADDR": "127.0.0.1:9200",
                "POOL_MANAGERD_RUNTIME_DIR": ".runtime/engines",
                "RUST_LOG": "info",
            },
        ),
        Example(
            "CLOUD_PROFILE, on a GPU machine. Each machine needs its own node id:",
            {
                "POOL_MANAGERD_NODE_ID": "gpu-node-1",
                "ORCHESTRATORD_URL": "http://control-plane:8080",
                "LLORCH_API_TOKEN": "abc123def456789...",
                "POOL_MANAGERD_BIND_ADDR": "0.0.0.0:9200",
                "POOL_MANAGERD_RUNTIME_DIR": "/var/lib/llama-orch/engines",
                "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS": "10",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4317",
                "PROMETHEUS_METRICS_PORT": "9091",
                "RUST_LOG": "info,pool_managerd=debug",
            },
        ),
    )

    bind: Annotated[
        Address,
        Var(
            "POOL_MANAGERD_BIND_ADDR",
            "Address of the HTTP API.",
            example="127.0.0.1:9200",
            packaged="127.0.0.1:9200",
        ),
    ] = Host("0.0.0.0", 9200)  # noqa: S104 -- the reference's own default
    node_id: Annotated[
        NodeId | None,
        Var(
            "POOL_MANAGERD_NODE_ID",
            "Name of this GPU machine, unique in the cluster.",
            example="gpu-node-1",
            allowed=f"1 to 128 letters, digits, dots, dashes and underscores, but not the word {NODE_ID_RESERVED}",
            profile="cloud",
            required="in CLOUD_PROFILE",
        ),
    ] = None
    queen_url: Annotated[
        BaseUrl | None,
        Var(
            "ORCHESTRATORD_URL",
            "URL of the queen-rbee to register with and send heartbeats to.",
            example="http://queen-rbee:8080",
            profile="cloud",
            required="in CLOUD_PROFILE",
        ),
    ] = None
    advertised: Annotated[
        Annotated[str, AfterValidator(node_address)] | None,
        Var(
            "POOL_MANAGERD_ADVERTISE_URL",
            "URL under which the queen reaches this pool-managerd. Default: the bind address; if that is 0.0.0.0 or "
            "[::], the local address of the route to the queen.",
            example="http://gpu-node-1.lan:9200",
            allowed="http://HOST:PORT or https://HOST:PORT",
            profile="cloud",
            default="(none): determined at each registration",
            addition=True,
        ),
    ] = None
    heartbeat_s: Annotated[
        Integer,
        Var(
            "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS",
            "Seconds between heartbeats. Must be less than the queen's ORCHESTRATORD_NODE_TIMEOUT_MS.",
            example="10",
            unit="seconds",
            profile="cloud",
        ),
        Field(ge=1, le=60),
    ] = 10
    runtime_dir: Annotated[
        Path,
        Var(
            "POOL_MANAGERD_RUNTIME_DIR",
            "Directory of the handoff files, in which engine-provisioner announces engines.",
            more=f"The Unix socket pool-managerd.sock is created beside it if systemd passes none. {RELATIVE}",
            example=RUNTIME_DIRECTORY,
            allowed="the path of a directory",
            packaged=RUNTIME_DIRECTORY,
        ),
    ] = DEFAULT_RUNTIME_DIRECTORY
    watch_interval_ms: Annotated[
        Integer,
        Var(
            "POOL_MANAGERD_WATCH_INTERVAL_MS",
            "Milliseconds between scans of the handoff directory, in case inotify misses a file.",
            example="1000",
            unit="milliseconds",
        ),
        Field(ge=100, le=10_000),
    ] = 1000
    auto_delete: Annotated[
        Flag,
        Var(
            "POOL_MANAGERD_AUTO_DELETE_HANDOFF",
            "Delete handoff files after reading them.",
            example="true",
        ),
    ] = True
    suspend_after_s: Annotated[
        Integer | None,
        Var(
            "POOL_MANAGERD_SUSPEND_AFTER_SECS",
            "Seconds without work after which this machine is suspended. The queen wakes it over the network when a "
            "task needs one of its pools.",
            more="Work is a request, a loaded or loading model, a download or a build; a drained pool keeps the "
            "machine awake too. Needs Wake-on-LAN on the interface that leads to the queen, and "
            "systemctl enable --now llama-orch-suspend.path. See pool-managerd(8).",
            example="900",
            unit="seconds",
            profile="cloud",
            default="(none): never",
            addition=True,
        ),
        Field(ge=1, le=604_800),
    ] = None
    wake_macs: Annotated[
        MacList,
        Var(
            "POOL_MANAGERD_WAKE_MACS",
            "Hardware addresses for which a magic packet wakes this machine, separated by commas, at most 8.",
            more="If it is set, it is not checked whether Wake-on-LAN is enabled.",
            example="52:54:00:12:34:56",
            profile="cloud",
            default="(none): those of the interface that leads to the queen, if Wake-on-LAN is enabled there",
            addition=True,
        ),
    ] = ()
    gpu_interval_ms: Annotated[
        Integer,
        Var(
            "POOL_MANAGERD_GPU_DISCOVERY_INTERVAL_MS",
            "Milliseconds between GPU discoveries.",
            example="10000",
            unit="milliseconds",
        ),
        Field(ge=1000, le=60_000),
    ] = 10_000
    gpu_read_interval_ms: Annotated[
        Integer,
        Var(
            "POOL_MANAGERD_GPU_READ_INTERVAL_MS",
            "Milliseconds between readings of memory, load, temperature and power of the known GPUs.",
            example="5000",
            unit="milliseconds",
            addition=True,
        ),
        Field(ge=500, le=60_000),
    ] = 5000
    metrics_port: Annotated[Integer, metrics_port_variable(9091), Field(ge=1, le=65535)] = 9091

    @property
    def profile(self) -> Literal["home", "cloud"]:
        """cloud if ORCHESTRATORD_URL or POOL_MANAGERD_NODE_ID is set, otherwise home."""
        return "cloud" if self.queen_url or self.node_id else "home"

    @rule
    def cloud_needs_all_three(self) -> Iterator[Problem]:
        """CLOUD_PROFILE needs ORCHESTRATORD_URL, POOL_MANAGERD_NODE_ID and a token."""
        if self.profile == "cloud":
            required = {
                "POOL_MANAGERD_NODE_ID": self.node_id,
                "ORCHESTRATORD_URL": self.queen_url,
                "LLORCH_API_TOKEN": self.token,
            }
            cause = "ORCHESTRATORD_URL" if self.queen_url else "POOL_MANAGERD_NODE_ID"
            problem = f"is not set, but CLOUD_PROFILE requires it ({cause} is set)"
            remedy = "Set all three of POOL_MANAGERD_NODE_ID, ORCHESTRATORD_URL and LLORCH_API_TOKEN, or none."
            yield from (Problem(name, None, problem, remedy) for name, value in required.items() if value is None)

    @rule
    def suspending_needs_another_machine(self) -> Iterator[Problem]:
        """POOL_MANAGERD_SUSPEND_AFTER_SECS needs CLOUD_PROFILE."""
        if self.suspend_after_s is not None and self.profile == "home":
            problem = "is set, but in HOME_PROFILE the queen would sleep with this machine, and nothing could wake it"
            remedy = "Remove it; the desktop suspends the machine, but not while tasks run: see pool-managerd(8)."
            yield Problem("POOL_MANAGERD_SUSPEND_AFTER_SECS", str(self.suspend_after_s), problem, remedy)

    @rule
    def metrics_have_a_port_of_their_own(self) -> Iterator[Problem]:
        """PROMETHEUS_METRICS_PORT differs from the port of POOL_MANAGERD_BIND_ADDR."""
        if self.metrics_port == self.bind.port:
            problem = f"is also the port of the API ({self.bind})"
            yield Problem("PROMETHEUS_METRICS_PORT", str(self.metrics_port), problem, "Set another port.")
