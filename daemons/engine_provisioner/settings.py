"""Every variable of engine-provisioner, declared once."""

from pathlib import Path
from typing import Annotated, ClassVar

from engine_provisioner.spec.pools_file import HERE, SYSTEM, path_for
from llama_orch.settings import Address, Example, Var
from llama_orch.settings.shared import DEFAULT_RUNTIME_DIRECTORY, RELATIVE, RUNTIME_DIRECTORY, Common
from llama_orch.settings.types import GpuMask, GpuMaskField, HomePath

METRICS_VARIABLE = "ENGINE_PROVISIONER_METRICS_ADDR"


class ProvisionerSettings(Common):
    """engine-provisioner's settings; immutable."""

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
            "Directory in which running engines are announced by handoff files; the same as pool-managerd's "
            "POOL_MANAGERD_RUNTIME_DIR.",
            more=f"The Unix socket engine-provisioner.sock is made beside it where systemd passes none. {RELATIVE}",
            example=RUNTIME_DIRECTORY,
            allowed="the path of a directory",
            packaged=RUNTIME_DIRECTORY,
        ),
    ] = DEFAULT_RUNTIME_DIRECTORY
    cache_dir: Annotated[
        HomePath,
        Var(
            "ENGINE_PROVISIONER_CACHE_DIR",
            "Directory that fetched engines and models are kept in.",
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
            more="The indices are NVML's. A GPU that is named and absent is a failure, never a quiet fall back to the "
            "CPU.",
            example="0,1",
        ),
    ] = GpuMask((0,))
    pools_config: Annotated[
        Path | None,
        Var(
            "ENGINE_PROVISIONER_POOLS_CONFIG",
            "The pools file.",
            more="It is checked together with the variables. Without one the daemon runs, and has nothing to do.",
            example=str(SYSTEM),
            allowed="the path of a file",
            packaged=str(SYSTEM),
            default=f"./{HERE} where there is one, else {SYSTEM}",
            addition=True,
        ),
    ] = None

    metrics_address: Annotated[
        Address | None,
        Var(
            METRICS_VARIABLE,
            "Address that serves /metrics alone, by plain HTTP and without a token.",
            more="Without it the metrics are served on the Unix socket only. A loopback address serves this machine, "
            "any other address whoever can connect.",
            example="127.0.0.1:9092",
            addition=True,
        ),
    ] = None

    def in_force(self, name: str) -> tuple[str, object]:
        """As in the base; the pools file may be one that is not named."""
        variable, value = super().in_force(name)
        return variable, path_for(self.pools_config) if name == "pools_config" else value
