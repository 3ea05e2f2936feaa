"""The settings of engine-provisioner: the declaration of each environment variable."""

from pathlib import Path
from typing import Annotated, ClassVar

from engine_provisioner.sources.settings import SourceSettings
from engine_provisioner.spec.pools_directory import LOCAL_FILE, SYSTEM_FILE, path_for
from llama_orch.settings import Address, Example, Var
from llama_orch.settings.shared import DEFAULT_RUNTIME_DIRECTORY, RELATIVE, RUNTIME_DIRECTORY
from llama_orch.settings.types import GpuMask, GpuMaskField, HomePath, Size

METRICS_VARIABLE = "ENGINE_PROVISIONER_METRICS_ADDR"


class ProvisionerSettings(SourceSettings):
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "HOME_PROFILE, on the machine of the queen:",
            {"ENGINE_PROVISIONER_HANDOFF_DIR": ".runtime/engines"},
        ),
        Example(
            "CLOUD_PROFILE, on a GPU machine:",
            {
                "ENGINE_PROVISIONER_HANDOFF_DIR": "/var/lib/llama-orch/engines",
                "ENGINE_PROVISIONER_CACHE_DIR": "/var/cache/llama-orch",
                "ENGINE_PROVISIONER_GPU_MASK": "0",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4317",
            },
        ),
    )

    handoff_dir: Annotated[
        Path,
        Var(
            "ENGINE_PROVISIONER_HANDOFF_DIR",
            "Directory for the handoff files that announce running engines. Must equal pool-managerd's "
            "POOL_MANAGERD_RUNTIME_DIR.",
            more=f"Without a socket from systemd, engine-provisioner.sock is created beside it. {RELATIVE}",
            example=RUNTIME_DIRECTORY,
            allowed="the path of a directory",
            packaged=RUNTIME_DIRECTORY,
        ),
    ] = DEFAULT_RUNTIME_DIRECTORY
    cache_dir: Annotated[
        HomePath,
        Var(
            "ENGINE_PROVISIONER_CACHE_DIR",
            "Directory that holds downloaded engines and models.",
            example="/var/cache/llama-orch",
            allowed="the path of a directory",
            packaged="/var/cache/llama-orch",
        ),
    ] = Path("~/.cache/llama-orch")
    gpu_mask: Annotated[
        GpuMaskField,
        Var(
            "ENGINE_PROVISIONER_GPU_MASK",
            "The GPUs that engines may use, by index, or cpu to run engines on the CPU.",
            more="Indices are those of NVML. If a configured GPU is absent, the pool fails; engines never fall back to "
            "the CPU.",
            example="0,1",
        ),
    ] = GpuMask((0,))
    pools_config: Annotated[
        Path | None,
        Var(
            "ENGINE_PROVISIONER_POOLS_CONFIG",
            "The pools file.",
            more="Files *.toml in the directory beside it whose name ends in .d, pools.d for pools.toml, add pools. "
            "They are validated together with the variables. If all are missing, the daemon runs without pools.",
            example=str(SYSTEM_FILE),
            allowed="the path of a file",
            packaged=str(SYSTEM_FILE),
            default=f"./{LOCAL_FILE} if it exists, else {SYSTEM_FILE}",
            addition=True,
        ),
    ] = None

    cache_limit: Annotated[
        Size | None,
        Var(
            "ENGINE_PROVISIONER_CACHE_LIMIT",
            "The size that all downloaded models together may have. The least recently used ones are removed before it "
            "is exceeded.",
            more="Pinned models and those of configured pools are never removed; if they fill the limit, a download "
            "fails. Without a limit, models are removed only if the disk would be full.",
            example="200G",
            addition=True,
        ),
    ] = None

    metrics_address: Annotated[
        Address | None,
        Var(
            METRICS_VARIABLE,
            "Address that serves only /metrics, by plain HTTP and without a token.",
            more="If unset, metrics are served on the Unix socket only. A loopback address serves this machine; any "
            "other address serves every client that can connect.",
            example="127.0.0.1:9092",
            addition=True,
        ),
    ] = None

    def in_force(self, name: str) -> tuple[str, object]:
        """Extend the base: an unset pools_config resolves to the file that is read."""
        variable, value = super().in_force(name)
        return variable, path_for(self.pools_config) if name == "pools_config" else value
