"""The user's configuration reference as a table, to hold the declarations of the daemons against."""

from dataclasses import dataclass

from engine_provisioner.settings import ProvisionerSettings
from llama_orch.settings.loading import Settings
from pool_managerd.settings import PoolManagerSettings
from queen_rbee.settings import QueenSettings

QUEEN, MANAGER, PROVISIONER = QueenSettings, PoolManagerSettings, ProvisionerSettings
DAEMONS: dict[str, type[Settings]] = {"queen-rbee": QUEEN, "pool-managerd": MANAGER, "engine-provisioner": PROVISIONER}


@dataclass(frozen=True)
class Entry:
    """One variable: its default as text ("None" where there is none), its range, or its valid values."""

    settings: type[Settings]
    env: str
    default: str
    range: tuple[int, int] | None = None
    values: tuple[str, ...] = ()


BOOLEANS = ("true", "false", "1", "0")
REFERENCE = (
    Entry(QUEEN, "ORCHESTRATORD_CLOUD_PROFILE", "False", values=BOOLEANS),
    Entry(QUEEN, "ORCHESTRATORD_BIND_ADDR", "None"),
    Entry(QUEEN, "ORCHD_ADDR", "None"),
    Entry(QUEEN, "LLORCH_API_TOKEN", "None"),
    Entry(QUEEN, "ORCHESTRATORD_NODE_TIMEOUT_MS", "30000", range=(5000, 300_000)),
    Entry(QUEEN, "ORCHESTRATORD_STALE_CHECK_INTERVAL_SECS", "10", range=(1, 60)),
    Entry(QUEEN, "ORCHD_RUNTIME_DIR", ".runtime/engines"),
    Entry(QUEEN, "ORCHD_HANDOFF_WATCH_INTERVAL_MS", "1000", range=(100, 10_000)),
    Entry(QUEEN, "ORCHESTRATORD_PLACEMENT_STRATEGY", "round-robin", values=("round-robin", "least-loaded", "random")),
    Entry(QUEEN, "ORCHD_ADMISSION_CAPACITY", "100", range=(1, 10_000)),
    Entry(QUEEN, "ORCHD_ADMISSION_POLICY", "drop-lru", values=("drop-lru", "reject-new")),
    Entry(QUEEN, "OTEL_EXPORTER_OTLP_ENDPOINT", "None"),
    Entry(QUEEN, "PROMETHEUS_METRICS_PORT", "9090", range=(1, 65_535)),
    Entry(QUEEN, "RUST_LOG", "info", values=("trace", "debug", "info", "warn", "error")),
    Entry(MANAGER, "POOL_MANAGERD_BIND_ADDR", "0.0.0.0:9200"),
    Entry(MANAGER, "POOL_MANAGERD_NODE_ID", "None"),
    Entry(MANAGER, "ORCHESTRATORD_URL", "None"),
    Entry(MANAGER, "LLORCH_API_TOKEN", "None"),
    Entry(MANAGER, "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS", "10", range=(1, 60)),
    Entry(MANAGER, "POOL_MANAGERD_RUNTIME_DIR", ".runtime/engines"),
    Entry(MANAGER, "POOL_MANAGERD_WATCH_INTERVAL_MS", "1000", range=(100, 10_000)),
    Entry(MANAGER, "POOL_MANAGERD_AUTO_DELETE_HANDOFF", "True", values=BOOLEANS),
    Entry(MANAGER, "POOL_MANAGERD_GPU_DISCOVERY_INTERVAL_MS", "10000", range=(1000, 60_000)),
    Entry(MANAGER, "OTEL_EXPORTER_OTLP_ENDPOINT", "None"),
    Entry(MANAGER, "PROMETHEUS_METRICS_PORT", "9091", range=(1, 65_535)),
    Entry(MANAGER, "RUST_LOG", "info", values=("trace", "debug", "info", "warn", "error")),
    Entry(PROVISIONER, "ENGINE_PROVISIONER_HANDOFF_DIR", ".runtime/engines"),
    Entry(PROVISIONER, "ENGINE_PROVISIONER_CACHE_DIR", "~/.cache/llama-orch"),
    Entry(PROVISIONER, "ENGINE_PROVISIONER_GPU_MASK", "0"),
    Entry(PROVISIONER, "OTEL_EXPORTER_OTLP_ENDPOINT", "None"),
)
RANGES = tuple(entry for entry in REFERENCE if entry.range)
CHOICES = tuple(entry for entry in REFERENCE if entry.values)


def named(entry: Entry) -> str:
    """A test's id."""
    return f"{entry.settings.__name__}-{entry.env}"


def value_of(settings: Settings, env: str) -> object:
    """The value in force of the variable `env`."""
    name = next(name for name, var in settings.variables().items() if var.env == env)
    return getattr(settings, name)
