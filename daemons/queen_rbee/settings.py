"""The settings of queen-rbee. Each is declared once; documentation and validation follow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llama_orch.addresses import Host
from llama_orch.keys.keys_file import DEFAULT_PATH, VARIABLE
from llama_orch.settings import Address, Example, Flag, Integer, Problem, Var, rule
from llama_orch.settings.api import ApiSettings
from llama_orch.settings.shared import (
    DEFAULT_RUNTIME_DIRECTORY,
    RELATIVE,
    RUNTIME_DIRECTORY,
    metrics_port_variable,
)
from llama_orch.settings.types import PathList, UrlList
from queen_rbee.pools.strategies import StrategyName, descriptions

HOME_ADDRESS = Host("127.0.0.1", 8080)
MODEL_DIRS = ("/srv/models", "/var/lib/llama-orch/models", "/var/cache/llama-orch/models", "~/.cache/llama-orch/models")
"""engine-provisioner stores fetched models in the last two."""
CLOUD_ADDRESS = Host("0.0.0.0", 8080)  # noqa: S104 -- the reference's own default in CLOUD_PROFILE


class QueenSettings(ApiSettings):
    """The settings of queen-rbee; immutable."""

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
            "Select CLOUD_PROFILE, many GPU machines that register with a token, instead of HOME_PROFILE, one machine.",
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
            "Older name of ORCHESTRATORD_BIND_ADDR. Used only if that is not set.",
            example="127.0.0.1:8080",
        ),
    ] = None
    node_timeout_ms: Annotated[
        Integer,
        Var(
            "ORCHESTRATORD_NODE_TIMEOUT_MS",
            "Milliseconds without a heartbeat after which a node counts as offline.",
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
            "Seconds between checks for nodes without heartbeats.",
            example="10",
            unit="seconds",
            profile="cloud",
        ),
        Field(ge=1, le=60),
    ] = 10
    wake_timeout_ms: Annotated[
        Integer,
        Var(
            "ORCHESTRATORD_WAKE_TIMEOUT_MS",
            "Milliseconds that a sleeping node may take to wake before it counts as offline.",
            more="Magic packets are repeated meanwhile. Tasks that only this node could serve end then, with "
            "POOL_UNREADY.",
            example="180000",
            unit="milliseconds",
            profile="cloud",
            addition=True,
        ),
        Field(ge=1000, le=3_600_000),
    ] = 180_000
    wake_address: Annotated[
        Address | None,
        Var(
            "ORCHESTRATORD_WAKE_ADDR",
            "Address to which the magic packets that wake nodes are sent, by UDP.",
            more="Set it if the queen is in another network than its nodes, to the broadcast address of theirs, if the "
            "routers forward that, or to a relay of Wake-on-LAN there.",
            example="192.168.20.255:9",
            profile="cloud",
            default="(none): the broadcast address of the network of each node, and the address of the node",
            addition=True,
        ),
    ] = None
    runtime_dir: Annotated[
        Path,
        Var(
            "ORCHD_RUNTIME_DIR",
            "Directory where engine-provisioner writes the handoff files of engines.",
            more=f"Without socket activation, the Unix socket queen-rbee.sock is created next to it. {RELATIVE}",
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
            "Milliseconds between scans of the handoff directory, in case a change notification is lost.",
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
            "Directories of model files, separated by commas. The catalog verifies digests of files below them only.",
            more="Symbolic links must not lead out of them: the digest of any other file would reveal its content.",
            default=",".join(MODEL_DIRS),
            example="/srv/models,/data/gguf",
            addition=True,
        ),
    ] = tuple(map(Path, MODEL_DIRS))
    pool_managers: Annotated[
        UrlList,
        Var(
            "ORCHD_POOL_MANAGERS",
            "URLs of the pool-managerds to poll for pools, separated by commas.",
            example="http://127.0.0.1:9200",
            profile="home",
            addition=True,
        ),
    ] = ("http://127.0.0.1:9200",)
    placement: Annotated[
        StrategyName,
        Var(
            "ORCHESTRATORD_PLACEMENT_STRATEGY",
            "How a replica is chosen among those that can take a task.",
            more=descriptions(),
            example="least-loaded",
        ),
    ] = "round-robin"
    prefix_routing: Annotated[
        Flag,
        Var(
            "ORCHESTRATORD_PREFIX_ROUTING",
            "Send a prompt to the replica that has computed its beginning before, unless that is much busier.",
            more="The engine's KV cache then saves the time to the first token. The strategy places all other tasks. "
            "Sessions keep to their replica in any case. By default llama-server gives the slot of a conversation to "
            "any other that shares a tenth of its prompt, such as the system prompt; in pools.toml, flags = "
            '["--slot-prompt-similarity", "0.85"] keeps more conversations in its cache.',
            example="false",
            addition=True,
        ),
    ] = True
    capacity: Annotated[
        Integer,
        Var(
            "ORCHD_ADMISSION_CAPACITY",
            "Number of tasks that may wait in the admission queue.",
            more="Running tasks do not count.",
            example="500",
        ),
        Field(ge=1, le=10_000),
    ] = 100
    policy: Annotated[
        Literal["drop-lru", "reject-new"],
        Var(
            "ORCHD_ADMISSION_POLICY",
            "What to do with a new task when the queue is full: drop the least recently attended waiting task, or "
            "refuse the new one.",
            more="drop-lru drops batch tasks first. The stream of a dropped task ends with QUEUE_FULL_DROP_LRU. A "
            "dropped or refused task that is sent again at the time of its Retry-After, with the same task_id or the "
            "same prompt, takes the place of a task without such a promise, and is not dropped again. reject-new "
            "answers with status 429. Running tasks are never dropped, nor interactive tasks for batch tasks: the new "
            "task is then refused.",
            example="drop-lru",
        ),
    ] = "drop-lru"
    keys_file: Annotated[
        Path | None,
        Var(
            VARIABLE,
            "File with the keys of users, see llama-orch-keys(5). The systemd credential keys.toml comes first.",
            more="It need not exist: without it there are no keys, and nothing changes. A reload reads it again. "
            "orchctl key add, list and revoke change it.",
            example=str(DEFAULT_PATH),
            allowed="the path of a file",
            packaged=str(DEFAULT_PATH),
            addition=True,
        ),
    ] = None
    response_store_bytes: Annotated[
        Integer,
        Var(
            "ORCHD_RESPONSE_STORE_BYTES",
            "Bytes of memory for responses that clients of OpenAI's Responses API may read and continue. 0: none.",
            more="A response is stored with its input unless the client says store: false. Every client with the token "
            "can read it. The least recently used ones make room; a restart removes all. Without the store, clients "
            "send the whole conversation.",
            example="268435456",
            unit="bytes",
            addition=True,
        ),
        Field(ge=0, le=1 << 36),
    ] = 0
    response_store_s: Annotated[
        Integer,
        Var(
            "ORCHD_RESPONSE_STORE_SECS",
            "Seconds after its last use when a stored response is erased.",
            example="86400",
            unit="seconds",
            addition=True,
        ),
        Field(ge=1, le=2_592_000),
    ] = 3600
    pool_wait_ms: Annotated[
        Integer,
        Var(
            "ORCHD_POOL_WAIT_MS",
            "Milliseconds that a task waits while no pool that could serve it is ready.",
            more="The task then ends with the retriable error POOL_UNREADY, or earlier at its own deadline. Set it to "
            "more than the time that the largest model needs to load.",
            example="600000",
            addition=True,
        ),
        Field(ge=1000, le=86_400_000),
    ] = 600_000
    files_quota_mb: Annotated[
        Integer,
        Var(
            "ORCHD_FILES_QUOTA_MB",
            "MiB that the files of /v1/files may take together, results of batches included. 0 turns files and "
            "batches off.",
            more="They are in the state directory of queen-rbee. A batch whose results have no room fails; what is "
            "done stays.",
            example="4096",
            unit="MiB",
            addition=True,
        ),
        Field(ge=0, le=1_000_000),
    ] = 1024
    files_keep_days: Annotated[
        Integer,
        Var(
            "ORCHD_FILES_KEEP_DAYS",
            "Days after which files and ended batches are erased.",
            example="7",
            unit="days",
            addition=True,
        ),
        Field(ge=1, le=3650),
    ] = 30
    metrics_port: Annotated[Integer, metrics_port_variable(9090), Field(ge=1, le=65535)] = 9090

    @property
    def address(self) -> Host:
        """The address of the HTTP API."""
        return self.bind or self.legacy_bind or (CLOUD_ADDRESS if self.cloud_profile else HOME_ADDRESS)

    @property
    def address_variable(self) -> str:
        """The variable to change if `address` cannot be bound."""
        return "ORCHD_ADDR" if self.bind is None and self.legacy_bind else "ORCHESTRATORD_BIND_ADDR"

    @property
    def profile(self) -> Literal["home", "cloud"]:
        """CLOUD_PROFILE is in effect if ORCHESTRATORD_CLOUD_PROFILE is true, otherwise HOME_PROFILE."""
        return "cloud" if self.cloud_profile else "home"

    def in_force(self, name: str) -> tuple[str, object]:
        """As in the base class. The address may come from the older variable or from the profile."""
        return (self.address_variable, self.address) if name == "bind" else super().in_force(name)

    @rule
    def one_address(self) -> Iterator[Problem]:
        """If both ORCHD_ADDR and ORCHESTRATORD_BIND_ADDR are set, they must be equal."""
        if self.bind and self.legacy_bind and self.bind != self.legacy_bind:
            problem = f"differs from ORCHESTRATORD_BIND_ADDR={self.bind}"
            yield Problem("ORCHD_ADDR", str(self.legacy_bind), problem, "Set only ORCHESTRATORD_BIND_ADDR.")

    @rule
    def cloud_requires_token(self) -> Iterator[Problem]:
        """CLOUD_PROFILE requires a token."""
        if self.cloud_profile and self.token is None:
            problem = "is not set, but CLOUD_PROFILE requires it"
            hint = "Generate one with openssl rand -hex 32 and set it on the queen and on every node."
            yield Problem("LLORCH_API_TOKEN", None, problem, hint)

    @rule
    def metrics_port_is_separate(self) -> Iterator[Problem]:
        """PROMETHEUS_METRICS_PORT must differ from the port of ORCHESTRATORD_BIND_ADDR."""
        if self.metrics_port == self.address.port:
            problem = f"is also the port of the API ({self.address})"
            yield Problem("PROMETHEUS_METRICS_PORT", str(self.metrics_port), problem, "Set another port.")
