"""The compute capabilities of this machine's NVIDIA GPUs.

They are told to cmake, because nvcc looks for them itself only where it can open a GPU; in a sandbox it then fails with
"compute_No CUDA devices found" (llama.cpp issue 18430).
"""

from collections.abc import Sequence


def architectures(indices: Sequence[int]) -> tuple[str, ...]:
    """Return the distinct capabilities of these GPUs, such as `90` for 9.0, in ascending order; all GPUs if none named.

    Empty if NVML cannot be used or does not know. Blocks.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            chosen = indices or range(pynvml.nvmlDeviceGetCount())
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in chosen]
            found = {tuple(map(int, pynvml.nvmlDeviceGetCudaComputeCapability(handle))) for handle in handles}
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ()
    return tuple(f"{major}{minor}" for major, minor in sorted(found))
