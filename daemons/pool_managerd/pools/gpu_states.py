"""The state of a GPU in one word, with the reason. Pure."""

from collections.abc import Iterator

from pool_managerd.pools.devices import Gpu, Gpus

State = tuple[str, str | None]
"""`ok`, `fenced`, `throttled`, `lost` or `unknown`, and why."""


def gpu_states(gpus: Gpus) -> Iterator[tuple[Gpu, State]]:
    """Return all known GPUs and MIG instances by index, the missing ones as last read."""
    missing = {each.gpu.uuid: each for each in gpus.missing}
    for gpu in sorted(gpus.known, key=lambda gpu: (gpu.index, -1 if gpu.mig_index is None else gpu.mig_index)):
        fence, absent = gpus.fence_of(gpu), missing.get(gpu.uuid)
        if fence:
            yield gpu, ("fenced", fence)
        elif absent:
            yield gpu, ("lost" if absent.lost else "unknown", absent.reason)
        else:
            yield gpu, ("throttled", gpu.overheated) if gpu.overheated else ("ok", None)
