"""A fake pynvml: devices can be lost, driver and library can be absent."""

from dataclasses import dataclass, field

import pynvml


@dataclass
class Memory:
    total: int = 80 << 30
    free: int = 60 << 30


@dataclass
class Utilization:
    gpu: int = 50


@dataclass
class ImitationNvml:
    """Answers as pynvml does, and raises its exceptions."""

    devices: int = 2
    init_error: int | None = None
    count_error: int | None = None
    lost: set[int] = field(default_factory=set)
    utilization_error: int | None = None
    up: bool = False
    calls: list[str] = field(default_factory=list)
    NVMLError: type[Exception] = pynvml.NVMLError

    def nvmlInit(self) -> None:  # noqa: N802
        self.calls.append("init")
        _raise(self.init_error)
        self.up = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.calls.append("shutdown")
        self.up = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        _raise(None if self.up else pynvml.NVML_ERROR_UNINITIALIZED)
        _raise(self.count_error)
        return self.devices

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        _raise(pynvml.NVML_ERROR_GPU_IS_LOST if index in self.lost else None)
        return index

    def nvmlDeviceGetUUID(self, handle: object) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: object) -> str:  # noqa: N802
        return "NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> Memory:  # noqa: N802
        return Memory()

    def nvmlDeviceGetUtilizationRates(self, handle: object) -> Utilization:  # noqa: N802
        _raise(self.utilization_error)
        return Utilization()

    def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> tuple[int, int]:  # noqa: N802
        return 9, 0


def _raise(code: int | None) -> None:
    if code is not None:
        raise pynvml.NVMLError(code)
