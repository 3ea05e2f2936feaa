"""The memory that a pool's engine occupies once it is loaded: an estimate from the header of its model. Pure.

What the last load took is better: see `memory.loads`.
"""

from collections.abc import Sequence

from engine_provisioner.engine import LocalModel
from engine_provisioner.gguf.header import GgufHeader
from engine_provisioner.memory.estimate import estimate
from engine_provisioner.memory.plan import plan_of
from engine_provisioner.spec.pool_spec import Pool

MIB = 1 << 20
GPU_OVERHEAD = 640 * MIB
"""The driver's context and the compute buffers on each GPU."""
CPU_OVERHEAD = 128 * MIB
KV_SHARE = 32_768
"""A token's keys and values take about this fraction, 1/32768, of the model's size: 128 KiB for 8 billion parameters
in 4 bits, with 16-bit keys and values."""
KV_TOKEN_MAX = 384 << 10
CPU = "cpu"


def memory_need(
    pool: Pool, model: LocalModel, devices: tuple[int, ...], header: GgufHeader | None = None
) -> dict[str, int]:
    """Return the bytes on each device by its NVML index, or on `cpu` if there are no `devices`.

    Without a header, for a model that is no GGUF file, only the size of the file counts.
    """
    if header is None:
        return _by_size(pool, model, devices)
    flags = ("-c", str(pool.ctx * pool.slots), "-np", str(pool.slots), *pool.flags)
    found = estimate(header, plan_of(flags, len(devices)), extra_bytes=max(0, model.size_bytes - header.weights.total))
    if not devices:
        return {CPU: found.host_bytes}
    shares = split(found.device_bytes, pool.tensor_split or [1.0] * len(devices))
    return {str(device): share for device, share in zip(devices, shares, strict=True)} | {CPU: found.host_bytes}


def _by_size(pool: Pool, model: LocalModel, devices: tuple[int, ...]) -> dict[str, int]:
    kv_cache = pool.ctx * pool.slots * min(model.size_bytes // KV_SHARE, KV_TOKEN_MAX)
    content = model.size_bytes + kv_cache
    if not devices:
        return {CPU: content + CPU_OVERHEAD}
    shares = split(content, pool.tensor_split or [1.0] * len(devices))
    return {str(device): share + GPU_OVERHEAD for device, share in zip(devices, shares, strict=True)}


def split(total: int, weights: Sequence[float]) -> list[int]:
    """Divide `total` in proportion to `weights`, each part rounded up; equally if all are 0."""
    whole = sum(weights)
    if not whole:
        weights, whole = [1.0] * len(weights), float(len(weights))
    return [-int(-total * weight // whole) for weight in weights]
