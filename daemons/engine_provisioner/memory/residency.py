"""What loading a pool takes, as reported to pool-managerd and the queen. Pure."""

from engine_provisioner.engine import LocalModel
from engine_provisioner.gguf.header import GgufHeader
from engine_provisioner.launch.devices import mask_text
from engine_provisioner.memory.loads import Load
from engine_provisioner.memory.need import memory_need
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.contracts.handoff import HandoffModel
from llama_orch.contracts.pools import Residency


def residency_of(
    pool: Pool, model: LocalModel, devices: tuple[int, ...], last: Load | None, header: GgufHeader | None = None
) -> Residency:
    """Return the residency of `pool`: what its last load took, or an estimate where that was not measured."""
    ctx_max = last.ctx_max if last and last.ctx_max else pool.ctx
    return Residency(
        model=HandoffModel(
            id=model.name, path=str(model.path), digest=model.digest, ctx_max=ctx_max, size_bytes=model.size_bytes
        ),
        slots_total=pool.slots,
        device_mask=mask_text(devices),
        need_bytes=memory_need(pool, model, devices, header) | (dict(last.need_bytes) if last else {}),
        keep_alive_s=pool.keep_alive_s,
        pinned=pool.pinned,
        group=pool.group,
        exclusive=pool.exclusive,
        load_s=last.took_s if last else None,
    )
