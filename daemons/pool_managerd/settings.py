"""Every variable of pool-managerd, declared once."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llama_orch.contracts.nodes import NodeId, node_address
from llama_orch.settings import Address, Flag, Problem, Var, Whole
from llama_orch.settings.shared import (
    DEFAULT_RUNTIME_DIRECTORY,
    RUNTIME_DIRECTORY,
    AuthOptionalField,
    Common,
    TokenField,
    TokenFileField,
    metrics_port_variable,
)
from llama_orch.settings.types import Host, http_url


class PoolManagerSettings(Common):
    """pool-managerd's settings; immutable. Durations carry their unit in the name."""

    bind: Annotated[
        Address,
        Var(
            "POOL_MANAGERD_BIND_ADDR",
            "Address that the HTTP API listens on.",
            example="127.0.0.1:9200",
            allowed="host:port or [ipv6]:port",
            packaged="127.0.0.1:9200",
        ),
    ] = Host("0.0.0.0", 9200)  # noqa: S104 -- the reference's own default
    node_id: Annotated[
        NodeId | None,
        Var(
            "POOL_MANAGERD_NODE_ID",
            "Name of this GPU machine, unlike that of any other in the cluster.",
            example="gpu-node-1",
            allowed="1 to 128 letters, digits, dots, dashes and underscores",
            profile="cloud",
            default="(none)",
            required="in CLOUD_PROFILE",
        ),
    ] = None
    queen_url: Annotated[
        Annotated[str, AfterValidator(http_url)] | None,
        Var(
            "ORCHESTRATORD_URL",
            "URL of queen-rbee, to register with and send heartbeats to.",
            example="http://queen-rbee:8080",
            allowed="an http:// or https:// URL",
            profile="cloud",
            default="(none)",
            required="in CLOUD_PROFILE",
        ),
    ] = None
    advertised: Annotated[
        Annotated[str, AfterValidator(node_address)] | None,
        Var(
            "POOL_MANAGERD_ADVERTISE_URL",
            "URL at which the queen reaches this pool-managerd. By default the bind address, and where that is all "
            "addresses (0.0.0.0, [::]), the one from which the queen is reached.",
            example="http://gpu-node-1.lan:9200",
            allowed="http://HOST:PORT or https://HOST:PORT",
            profile="cloud",
            default="(found out)",
            addition=True,
        ),
    ] = None
    token: TokenField = None
    token_file: TokenFileField = None
    auth_optional: AuthOptionalField = False
    heartbeat_s: Annotated[
        Whole,
        Var(
            "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS",
            "Seconds between two heartbeats; less than the queen's ORCHESTRATORD_NODE_TIMEOUT_MS.",
            example="10",
            allowed="seconds from 1 to 60",
            profile="cloud",
        ),
        Field(ge=1, le=60),
    ] = 10
    runtime_dir: Annotated[
        Path,
        Var(
            "POOL_MANAGERD_RUNTIME_DIR",
            "Directory in which engine-provisioner announces engines by handoff files.",
            example=RUNTIME_DIRECTORY,
            allowed="the path of a directory",
            packaged=RUNTIME_DIRECTORY,
        ),
    ] = DEFAULT_RUNTIME_DIRECTORY
    watch_interval_ms: Annotated[
        Whole,
        Var(
            "POOL_MANAGERD_WATCH_INTERVAL_MS",
            "Milliseconds between two looks at the handoff directory: the backstop of its wake-ups.",
            example="1000",
            allowed="milliseconds from 100 to 10000",
        ),
        Field(ge=100, le=10_000),
    ] = 1000
    auto_delete: Annotated[
        Flag,
        Var(
            "POOL_MANAGERD_AUTO_DELETE_HANDOFF",
            "Whether a handoff file is deleted once it has been taken.",
            example="true",
            allowed="true, false, 1 or 0",
        ),
    ] = True
    gpu_interval_ms: Annotated[
        Whole,
        Var(
            "POOL_MANAGERD_GPU_DISCOVERY_INTERVAL_MS",
            "Milliseconds between two looks at the GPUs.",
            example="10000",
            allowed="milliseconds from 1000 to 60000",
        ),
        Field(ge=1000, le=60_000),
    ] = 10_000
    metrics_port: Annotated[Whole, metrics_port_variable(9091), Field(ge=1, le=65535)] = 9091

    @property
    def profile(self) -> Literal["home", "cloud"]:
        """CLOUD_PROFILE as soon as a queen's URL or a node id is set."""
        return "cloud" if self.queen_url or self.node_id else "home"

    def conflicts(self) -> list[Problem]:
        """Variables that are right by themselves and wrong together."""
        found = []
        if self.profile == "cloud":
            wanted = {
                "POOL_MANAGERD_NODE_ID": self.node_id,
                "ORCHESTRATORD_URL": self.queen_url,
                "LLORCH_API_TOKEN": self.token,
            }
            because = "ORCHESTRATORD_URL" if self.queen_url else "POOL_MANAGERD_NODE_ID"
            problem = f"is not set, and CLOUD_PROFILE needs it ({because} is set)"
            mend = "Set all three of POOL_MANAGERD_NODE_ID, ORCHESTRATORD_URL and LLORCH_API_TOKEN, or none."
            found += [Problem(name, None, problem, mend) for name, value in wanted.items() if value is None]
        if self.metrics_port == self.bind.port:
            problem = f"is also the port of the API ({self.bind})"
            found.append(Problem("PROMETHEUS_METRICS_PORT", str(self.metrics_port), problem, "Set another port."))
        return found
