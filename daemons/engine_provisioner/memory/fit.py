"""Whether a model can fit on the GPUs of its pool at all. Pure.

Only what is certain counts, the weights: an estimate of the rest may be wrong, and then the engine has the last word.
"""

from engine_provisioner.engine import LocalModel
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.progress import size_text
from engine_provisioner.gguf.header import GgufHeader
from engine_provisioner.memory.need import CPU, memory_need
from engine_provisioner.spec.pool_spec import Pool

OFFLOAD_FLAGS = {
    *("-ngl", "--gpu-layers", "--n-gpu-layers", "-ot", "--override-tensor", "-cmoe", "--cpu-moe", "-ncmoe"),
    *("--n-cpu-moe", "-sm", "--split-mode", "-fit", "--fit", "--rpc"),
}
"""Flags by which weights stay in the machine's memory, or go elsewhere."""
OFFLOAD_VARIABLES = ("LLAMA_ARG_", "GGML_CUDA_ENABLE_UNIFIED_MEMORY")


def too_large(
    pool: Pool,
    model: LocalModel,
    header: GgufHeader | None,
    devices: tuple[int, ...],
    total_bytes: int | None,
    projector_bytes: int = 0,
) -> ProvisioningFailure | None:
    """Return the failure if the weights alone exceed `total_bytes`, the memory of all `devices` together.

    None where that is not certain: on the CPU, which maps files larger than the memory; if the memory or the header is
    unknown; and if the pool's flags decide where weights go. The token embeddings and the `projector_bytes` of a
    projector, both part of the model's size, need not be on a GPU.
    """
    if header is None or not total_bytes or not devices or _places_weights(pool):
        return None
    weights = model.size_bytes - header.data_offset - header.weights.input - projector_bytes
    if weights <= total_bytes:
        return None
    need = sum(size for device, size in memory_need(pool, model, devices, header).items() if device != CPU)
    one = len(devices) == 1
    message = (
        f"the weights of {model.name} take {size_text(weights)}, more than the {size_text(total_bytes)} of GPU "
        f"{','.join(map(str, devices))}{'' if one else ' together'}; loading it takes {size_text(need)} by estimate "
        f"(ctx {pool.ctx}, slots {pool.slots})"
    )
    hint = (
        "Use a smaller quantization or more devices, or keep layers in the machine's memory, as in "
        'flags = ["--n-gpu-layers", "20"].'
    )
    return ProvisioningFailure(message, hint, Retry.NEVER)


def _places_weights(pool: Pool) -> bool:
    names = {flag.partition("=")[0] for flag in pool.flags}
    return bool(names & OFFLOAD_FLAGS) or any(name.startswith(OFFLOAD_VARIABLES) for name in pool.env)
