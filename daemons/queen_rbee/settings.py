"""Every variable of queen-rbee, declared once."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

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
from llama_orch.settings.types import Host, UrlList

HOME_ADDRESS = Host("127.0.0.1", 8080)
CLOUD_ADDRESS = Host("0.0.0.0", 8080)  # noqa: S104 -- the reference's own default in CLOUD_PROFILE


class QueenSettings(Common):
    """queen-rbee's settings; immutable. Durations carry their unit in the name."""

    cloud_profile: Annotated[
        Flag,
        Var(
            "ORCHESTRATORD_CLOUD_PROFILE",
            "CLOUD_PROFILE: many GPU machines that register with a token. Otherwise HOME_PROFILE, one machine.",
            example="true",
            allowed="true, false, 1 or 0",
        ),
    ] = False
    bind: Annotated[
        Address | None,
        Var(
            "ORCHESTRATORD_BIND_ADDR",
            "Address that the HTTP API listens on.",
            example="127.0.0.1:8080",
            allowed="host:port or [ipv6]:port",
            default="127.0.0.1:8080, in CLOUD_PROFILE 0.0.0.0:8080",
        ),
    ] = None
    legacy_bind: Annotated[
        Address | None,
        Var(
            "ORCHD_ADDR",
            "Older name of ORCHESTRATORD_BIND_ADDR; counts only where that is not set.",
            example="127.0.0.1:8080",
            allowed="host:port or [ipv6]:port",
            default="(none)",
        ),
    ] = None
    token: TokenField = None
    token_file: TokenFileField = None
    auth_optional: AuthOptionalField = False
    node_timeout_ms: Annotated[
        Whole,
        Var(
            "ORCHESTRATORD_NODE_TIMEOUT_MS",
            "A node that sends no heartbeat for so many milliseconds counts as offline.",
            example="30000",
            allowed="milliseconds from 5000 to 300000",
            profile="cloud",
        ),
        Field(ge=5000, le=300_000),
    ] = 30_000
    stale_check_s: Annotated[
        Whole,
        Var(
            "ORCHESTRATORD_STALE_CHECK_INTERVAL_SECS",
            "Seconds between two looks for nodes whose heartbeats have stopped.",
            example="10",
            allowed="seconds from 1 to 60",
            profile="cloud",
        ),
        Field(ge=1, le=60),
    ] = 10
    runtime_dir: Annotated[
        Path,
        Var(
            "ORCHD_RUNTIME_DIR",
            "Directory in which engine-provisioner announces engines by handoff files.",
            example=RUNTIME_DIRECTORY,
            allowed="the path of a directory",
            profile="home",
            packaged=RUNTIME_DIRECTORY,
        ),
    ] = DEFAULT_RUNTIME_DIRECTORY
    watch_interval_ms: Annotated[
        Whole,
        Var(
            "ORCHD_HANDOFF_WATCH_INTERVAL_MS",
            "Milliseconds between two looks at the handoff directory: the backstop of its wake-ups.",
            example="1000",
            allowed="milliseconds from 100 to 10000",
            profile="home",
        ),
        Field(ge=100, le=10_000),
    ] = 1000
    pool_managers: Annotated[
        UrlList,
        Var(
            "ORCHD_POOL_MANAGERS",
            "The pool-managerds that are asked for their pools, by URL, separated by commas.",
            example="http://127.0.0.1:9200",
            allowed="http:// URLs, separated by commas",
            profile="home",
            addition=True,
        ),
    ] = ("http://127.0.0.1:9200",)
    placement: Annotated[
        Literal["round-robin", "least-loaded", "random"],
        Var(
            "ORCHESTRATORD_PLACEMENT_STRATEGY",
            "How a pool is chosen among those that can take a task.",
            example="least-loaded",
            allowed="round-robin, least-loaded or random",
        ),
    ] = "round-robin"
    capacity: Annotated[
        Whole,
        Var(
            "ORCHD_ADMISSION_CAPACITY",
            "How many tasks may wait in the admission queue.",
            example="500",
            allowed="1 to 10000",
        ),
        Field(ge=1, le=10_000),
    ] = 100
    policy: Annotated[
        Literal["drop-lru", "reject-new"],
        Var(
            "ORCHD_ADMISSION_POLICY",
            "What happens when the queue is full: drop the waiting task that was least recently attended, or refuse "
            "the new one.",
            example="drop-lru",
            allowed="drop-lru or reject-new",
        ),
    ] = "drop-lru"
    metrics_port: Annotated[Whole, metrics_port_variable(9090), Field(ge=1, le=65535)] = 9090

    @property
    def address(self) -> Host:
        """The address of the HTTP API."""
        return self.bind or self.legacy_bind or (CLOUD_ADDRESS if self.cloud_profile else HOME_ADDRESS)

    @property
    def address_variable(self) -> str:
        """The variable to change when `address` cannot be had."""
        return "ORCHD_ADDR" if self.bind is None and self.legacy_bind else "ORCHESTRATORD_BIND_ADDR"

    @property
    def profile(self) -> Literal["home", "cloud"]:
        """The profile in force."""
        return "cloud" if self.cloud_profile else "home"

    def conflicts(self) -> list[Problem]:
        """Variables that are right by themselves and wrong together."""
        found = []
        if self.bind and self.legacy_bind and self.bind != self.legacy_bind:
            problem = f"differs from ORCHESTRATORD_BIND_ADDR={self.bind}"
            found.append(Problem("ORCHD_ADDR", str(self.legacy_bind), problem, "Set only ORCHESTRATORD_BIND_ADDR."))
        if self.cloud_profile and self.token is None:
            problem = "is not set, and CLOUD_PROFILE needs it"
            mend = "Make one with openssl rand -hex 32 and set it on the queen and on every node."
            found.append(Problem("LLORCH_API_TOKEN", None, problem, mend))
        if self.metrics_port == self.address.port:
            problem = f"is also the port of the API ({self.address})"
            found.append(Problem("PROMETHEUS_METRICS_PORT", str(self.metrics_port), problem, "Set another port."))
        return found
