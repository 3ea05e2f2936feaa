"""Every variable of engine-provisioner, declared once."""

from pathlib import Path
from typing import Annotated

from llama_orch.settings import Var
from llama_orch.settings.shared import DEFAULT_RUNTIME_DIRECTORY, RUNTIME_DIRECTORY, Common
from llama_orch.settings.types import GpuMask, GpuMaskField, HomePath


class ProvisionerSettings(Common):
    """engine-provisioner's settings; immutable."""

    handoff_dir: Annotated[
        Path,
        Var(
            "ENGINE_PROVISIONER_HANDOFF_DIR",
            "Directory in which running engines are announced by handoff files; the same as pool-managerd's "
            "POOL_MANAGERD_RUNTIME_DIR.",
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
            default="~/.cache/llama-orch",
        ),
    ] = Path("~/.cache/llama-orch")
    gpu_mask: Annotated[
        GpuMaskField,
        Var(
            "ENGINE_PROVISIONER_GPU_MASK",
            "The GPUs that engines may use, by index, or cpu to run engines on the CPU.",
            example="0,1",
            allowed="GPU indices separated by commas, or cpu",
        ),
    ] = GpuMask((0,))
    pools_config: Annotated[
        Path | None,
        Var(
            "ENGINE_PROVISIONER_POOLS_CONFIG",
            "The pools file.",
            example="/etc/llama-orch/pools.toml",
            allowed="the path of a file",
            packaged="/etc/llama-orch/pools.toml",
            default="./pools.toml where there is one, else /etc/llama-orch/pools.toml",
            addition=True,
        ),
    ] = None
