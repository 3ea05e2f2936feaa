"""The declaration of an engine kind, and the values that its functions take and return.

A kind is a module of this package with one `Kind`, registered in `llama_orch.engines.KINDS`.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llama_orch.contracts.engines import Workload
from llama_orch.engines.engine_client import EngineClient

if TYPE_CHECKING:  # only queen-rbee needs the wire formats
    from llama_orch.engines.wire.adapter import EngineAdapter

OPENAI_COMPLETIONS: Mapping[str, Workload] = {"/v1/chat/completions": "completion", "/v1/completions": "completion"}
OPENAI_EMBEDDINGS: Mapping[str, Workload] = {"/v1/embeddings": "embedding"}
RERANK: Mapping[str, Workload] = {"/v1/rerank": "rerank"}

HEALTH_PATH = "/health"
LOADING_STATUSES = frozenset({503})


@dataclass(frozen=True)
class Description:
    """What an engine reports about itself. None: it does not report that; `ctx_max` is in tokens per slot."""

    models: tuple[str, ...]
    ctx_max: int | None = None
    workloads: tuple[Workload, ...] | None = None
    slots: int | None = None
    version: str | None = None

    @property
    def only_model(self) -> str | None:
        """The model, if the engine serves exactly one."""
        return self.models[0] if len(self.models) == 1 else None


@dataclass(frozen=True)
class Slots:
    """How many requests an engine can process at once, and how many of these slots are free."""

    total: int
    free: int


@dataclass(frozen=True)
class Load:
    """How busy an engine is. `kv_usage` is the used part of its KV cache, 0 to 1; None: not reported."""

    slots: Slots | None = None
    kv_usage: float | None = None


@dataclass(frozen=True)
class EngineOptions:
    """The part of a pool's configuration that becomes options of its engine."""

    flags: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workloads: Sequence[Workload] = ()


@dataclass(frozen=True)
class LaunchRequest:
    """What an engine is to be started for. `ctx` is in tokens per slot; no `devices` means on the CPU.

    `known_options` are the options that its --help lists.
    """

    options: EngineOptions
    known_options: frozenset[str]
    model_path: str
    model_alias: str
    host: str
    port: int
    ctx: int
    slots: int
    devices: Sequence[int]
    tensor_split: Sequence[float]
    cache_ram_mib: int
    mmproj_path: str | None = None
    template_path: str | None = None
    model_name: str = ""
    """The name under which the model is announced; `model_alias` is a short form of it."""


@dataclass(frozen=True)
class Launch:
    """How engine-provisioner starts an engine of a kind."""

    arguments: Callable[[LaunchRequest], list[str]]
    """The command line behind the program, without the pool's own flags."""
    workload: Callable[[EngineOptions], Workload | None]
    """The workload of an engine whose pool declares none. None: its options do not tell, so all of the kind's count."""
    conflicts: Callable[[EngineOptions], Iterator[str]]
    """Why the declared workloads contradict the other options."""
    only_in_container: bool = False
    """Whether the engine can only be started in a container: engine-provisioner has no program of this kind."""
    container_entry: tuple[str, ...] = ()
    """The words in a container before the arguments; none where the published image has an entry point."""
    container_env: Mapping[str, str] = field(default_factory=dict)
    """Variables for the engine in a container, besides those of the pool."""
    loads_gguf: bool = False
    """Whether models are GGUF files; otherwise they may be directories of any content."""


def any_workload(_options: EngineOptions) -> Workload | None:
    """Return None, for engines whose model decides what they do."""
    return None


def no_conflicts(_options: EngineOptions) -> Iterator[str]:
    """Yield nothing, for engines whose options do not decide what they do."""
    yield from ()


async def no_load(_client: EngineClient, _flags: Sequence[str]) -> Load:
    """Return an empty Load, for engines that do not report any."""
    return Load()


async def no_tokens(_client: EngineClient) -> int | None:
    """Return None, for engines that do not report any."""
    return None


def no_workloads(_flags: Iterable[str]) -> list[Workload] | None:
    """Return None, for engines whose flags do not decide what they do."""
    return None


@dataclass(frozen=True)
class Kind:
    """All that the daemons know of one kind of engine."""

    name: str
    relay_paths: Mapping[str, Workload]
    """The POST requests that a node's relay passes on; `{model}` stands for one percent-encoded path segment."""
    describe: Callable[[EngineClient], Awaitable[Description | None]]
    """Ask the engine what it serves. None: it reports no model."""
    adapter: Callable[[], "EngineAdapter"]
    """Import and create the wire format."""

    health_path: str = HEALTH_PATH
    """GET answers 200 when the engine is ready."""
    loading_statuses: frozenset[int] = LOADING_STATUSES
    """Statuses of the health check that mean: up, but not ready yet."""
    describe_by_health: Callable[[bytes], Description | None] | None = None
    """Reads the description from each health answer. Such an engine is ready only if that answer has status 200."""
    models_are_fixed: bool = True
    """Whether the models stay the same while the engine runs, so that a handoff file may name them."""
    accepts_any_model_name: bool = False
    """Whether requests may name the model as they like, so that the pools file may rename it."""
    reports_workloads: bool = False
    """Whether the engine must be asked for its workloads if its handoff file does not tell them."""
    version_path: str | None = None
    """Where GET returns `{"version": …}`, if `describe` does not report the version."""

    load: Callable[[EngineClient, Sequence[str]], Awaitable[Load]] = no_load
    """Ask the engine, started with these flags, how busy it is."""
    load_limit_s: float | None = None
    """How long to wait for `load`, where that is less than the client's own limit."""
    tokens: Callable[[EngineClient], Awaitable[int | None]] = no_tokens
    """Ask the engine how many tokens it has generated since its start."""
    workloads_by_flags: Callable[[Iterable[str]], list[Workload] | None] = no_workloads
    """The workloads of an engine by the flags it was started with. None: the flags do not tell."""
    launch: Launch | None = None
    """None: only mode external."""
