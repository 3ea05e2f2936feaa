"""Every variable of queen-rbee, declared once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llama_orch.addresses import Host
from llama_orch.settings import Address, Example, Flag, Integer, Problem, Var, rule
from llama_orch.settings.api import ApiSettings
from llama_orch.settings.shared import (
    DEFAULT_RUNTIME_DIRECTORY,
    RELATIVE,
    RUNTIME_DIRECTORY,
    metrics_port_variable,
)
from llama_orch.settings.types import PathList, UrlList

HOME_ADDRESS = Host("127.0.0.1", 8080)
MODEL_DIRS = ("/srv/models", "/var/lib/llama-orch/models", "/var/cache/llama-orch/models", "~/.cache/llama-orch/models")
"""The last two are where engine-provisioner keeps the models that it has fetched."""
CLOUD_ADDRESS = Host("0.0.0.0", 8080)  # noqa: S104 -- the reference's own default in CLOUD_PROFILE


class QueenSettings(ApiSettings):
    """queen-rbee's settings; immutable. Durations carry their unit in the name."""

    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "HOME_PROFILE, all on one machine:",
            {
                "ORCHD_ADDR": "127.0.0.1:8080",
                "ORCHD_RUNTIME_DIR": ".runtime/engines",
                "ORCHD_ADMISSION_CAPACITY": "100",
                "RUST_LOG": "info",
            },
        ),
        Example(
            "CLOUD_PROFILE, on the control plane, which has no GPU:",
            {
                "ORCHESTRATORD_CLOUD_PROFILE": "true",
                "ORCHESTRATORD_BIND_ADDR": "0.0.0.0:8080",
                "LLORCH_API_TOKEN": "abc123def456789...",
                "ORCHESTRATORD_NODE_TIMEOUT_MS": "30000",
                "ORCHESTRATORD_PLACEMENT_STRATEGY": "least-loaded",
                "ORCHD_ADMISSION_CAPACITY": "500",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4317",
                "PROMETHEUS_METRICS_PORT": "9090",
                "RUST_LOG": "info,queen-rbee=debug",
            },
        ),
    )

    cloud_profile: Annotated[
        Flag,
        Var(
            "ORCHESTRATORD_CLOUD_PROFILE",
            "CLOUD_PROFILE: many GPU machines that register with a token. Otherwise HOME_PROFILE, one machine.",
            example="true",
        ),
    ] = False
    bind: Annotated[
        Address | None,
        Var(
            "ORCHESTRATORD_BIND_ADDR",
            "Address that the HTTP API listens on.",
            example="127.0.0.1:8080",
            default=f"{HOME_ADDRESS}, in CLOUD_PROFILE {CLOUD_ADDRESS}",
        ),
    ] = None
    legacy_bind: Annotated[
        Address | None,
        Var(
            "ORCHD_ADDR",
            "Older name of ORCHESTRATORD_BIND_ADDR; counts only where that is not set.",
            example="127.0.0.1:8080",
        ),
    ] = None
    node_timeout_ms: Annotated[
        Integer,
        Var(
            "ORCHESTRATORD_NODE_TIMEOUT_MS",
            "A node that sends no heartbeat for so many milliseconds counts as offline.",
            example="30000",
            unit="milliseconds",
            profile="cloud",
        ),
        Field(ge=5000, le=300_000),
    ] = 30_000
    stale_check_s: Annotated[
        Integer,
        Var(
            "ORCHESTRATORD_STALE_CHECK_INTERVAL_SECS",
            "Seconds between two looks for nodes whose heartbeats have stopped.",
            example="10",
            unit="seconds",
            profile="cloud",
        ),
        Field(ge=1, le=60),
    ] = 10
    runtime_dir: Annotated[
        Path,
        Var(
            "ORCHD_RUNTIME_DIR",
            "Directory in which engine-provisioner announces engines by handoff files.",
            more=f"The Unix socket queen-rbee.sock is made beside it where systemd passes none. {RELATIVE}",
            example=RUNTIME_DIRECTORY,
            allowed="the path of a directory",
            profile="home",
            packaged=RUNTIME_DIRECTORY,
        ),
    ] = DEFAULT_RUNTIME_DIRECTORY
    watch_interval_ms: Annotated[
        Integer,
        Var(
            "ORCHD_HANDOFF_WATCH_INTERVAL_MS",
            "Milliseconds between two looks at the handoff directory: the backstop of its wake-ups.",
            example="1000",
            unit="milliseconds",
            profile="home",
        ),
        Field(ge=100, le=10_000),
    ] = 1000
    model_dirs: Annotated[
        PathList,
        Var(
            "LLORCH_MODEL_DIRS",
            "Directories of model files, separated by commas: only below them does the catalog check digests of files.",
            more="A symbolic link must not lead out of them. The digest of another file would tell what is in it.",
            default=",".join(MODEL_DIRS),
            example="/srv/models,/data/gguf",
            addition=True,
        ),
    ] = tuple(map(Path, MODEL_DIRS))
    pool_managers: Annotated[
        UrlList,
        Var(
            "ORCHD_POOL_MANAGERS",
            "The pool-managerds that are asked for their pools, by URL, separated by commas.",
            example="http://127.0.0.1:9200",
            profile="home",
            addition=True,
        ),
    ] = ("http://127.0.0.1:9200",)
    placement: Annotated[
        Literal["round-robin", "least-loaded", "random"],
        Var(
            "ORCHESTRATORD_PLACEMENT_STRATEGY",
            "How a pool is chosen among those that can take a task.",
            more="least-loaded takes the one with the most free GPU memory, then the fewest busy slots.",
            example="least-loaded",
        ),
    ] = "round-robin"
    capacity: Annotated[
        Integer,
        Var(
            "ORCHD_ADMISSION_CAPACITY",
            "How many tasks may wait in the admission queue.",
            more="Those that run do not count.",
            example="500",
        ),
        Field(ge=1, le=10_000),
    ] = 100
    policy: Annotated[
        Literal["drop-lru", "reject-new"],
        Var(
            "ORCHD_ADMISSION_POLICY",
            "What happens when the queue is full: drop the waiting task that was least recently attended, or refuse "
            "the new one.",
            more="drop-lru takes batch tasks first; the stream of a dropped task ends with QUEUE_FULL_DROP_LRU. Who "
            "was dropped or refused and comes back when it was told to, with the same task_id or the same words, takes "
            "the place of one who was promised nothing, and is not dropped again. reject-new answers with status 429. "
            "A running task is never dropped, nor an interactive one for a batch one: then the newcomer is refused.",
            example="drop-lru",
        ),
    ] = "drop-lru"
    pool_wait_ms: Annotated[
        Integer,
        Var(
            "ORCHD_POOL_WAIT_MS",
            "How long a task waits while no pool that could serve it is ready, in milliseconds.",
            more="After that it ends with POOL_UNREADY, retriable. A deadline of the task that passes earlier counts. "
            "Give it more time than the largest model needs to load.",
            example="600000",
            addition=True,
        ),
        Field(ge=1000, le=86_400_000),
    ] = 600_000
    metrics_port: Annotated[Integer, metrics_port_variable(9090), Field(ge=1, le=65535)] = 9090

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
        """CLOUD_PROFILE is in force where ORCHESTRATORD_CLOUD_PROFILE says so, otherwise HOME_PROFILE."""
        return "cloud" if self.cloud_profile else "home"

    def in_force(self, name: str) -> tuple[str, object]:
        """As in the base; the address may come from its older name or from the profile."""
        return (self.address_variable, self.address) if name == "bind" else super().in_force(name)

    @rule
    def one_address(self) -> Iterator[Problem]:
        """ORCHD_ADDR, where it is set beside ORCHESTRATORD_BIND_ADDR, says the same."""
        if self.bind and self.legacy_bind and self.bind != self.legacy_bind:
            problem = f"differs from ORCHESTRATORD_BIND_ADDR={self.bind}"
            yield Problem("ORCHD_ADDR", str(self.legacy_bind), problem, "Set only ORCHESTRATORD_BIND_ADDR.")

    @rule
    def cloud_needs_a_token(self) -> Iterator[Problem]:
        """CLOUD_PROFILE needs a token."""
        if self.cloud_profile and self.token is None:
            problem = "is not set, and CLOUD_PROFILE needs it"
            mend = "Make one with openssl rand -hex 32 and set it on the queen and on every node."
            yield Problem("LLORCH_API_TOKEN", None, problem, mend)

    @rule
    def metrics_have_a_port_of_their_own(self) -> Iterator[Problem]:
        """PROMETHEUS_METRICS_PORT differs from the port of ORCHESTRATORD_BIND_ADDR."""
        if self.metrics_port == self.address.port:
            problem = f"is also the port of the API ({self.address})"
            yield Problem("PROMETHEUS_METRICS_PORT", str(self.metrics_port), problem, "Set another port.")
