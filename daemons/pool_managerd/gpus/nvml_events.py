"""The first source of GPU faults: NVML's events, which come at once.

Owns an event set and an initialisation of NVML of its own: NVML counts those.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

from pool_managerd.gpus import nvml as errors
from pool_managerd.gpus.fault_source import BATCH_MAX, SourceUnavailable
from pool_managerd.gpus.faults import Fault, Sighting
from pool_managerd.gpus.nvml import Nvml
from pool_managerd.gpus.xids import DOUBLE_BIT_ECC, SINGLE_BIT_ECC

NAME = "nvml"
SINGLE_BIT, DOUBLE_BIT, XID = 1, 2, 8
"""nvmlEventType*."""


class NvmlEvents:
    """Xids and memory errors of all NVIDIA GPUs. `renew` makes it look for GPUs again; it may be called anywhere."""

    name = NAME

    def __init__(self, load: Callable[[], Nvml]) -> None:
        self._load = load
        self._nvml: Nvml | None = None
        self._events: Any = None
        self._uuids: dict[int, str] = {}
        self._renew = threading.Event()

    def renew(self) -> None:
        self._renew.set()

    def open(self) -> None:
        self._renew.clear()
        try:
            nvml = self._load()
        except OSError as error:
            raise SourceUnavailable(str(error)) from error
        try:
            nvml.nvmlInit()
            self._nvml = nvml
            self._events = nvml.nvmlEventSetCreate()
            for index in range(nvml.nvmlDeviceGetCount()):
                self._register(nvml, index)
        except nvml.NVMLError as error:
            raise SourceUnavailable(errors.words(error)) from error
        if not self._uuids:
            raise SourceUnavailable("no GPU offers events")

    def _register(self, nvml: Nvml, index: int) -> None:
        """Ask for the events that this GPU has; consumer cards have no memory errors."""
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            offered = nvml.nvmlDeviceGetSupportedEventTypes(handle) & (SINGLE_BIT | DOUBLE_BIT | XID)
            if offered:
                nvml.nvmlDeviceRegisterEvents(handle, offered, self._events)
                self._uuids[_pointer(handle)] = errors.text(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError:
            return  # its faults are in the kernel log

    def wait(self, limit_s: float, stopping: threading.Event) -> list[Sighting]:
        if self._renew.is_set():
            self.close()
            self.open()
        nvml, found = self._nvml, list[Sighting]()
        assert nvml
        while len(found) < BATCH_MAX:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0 if found else round(limit_s * 1000))
            except nvml.NVMLError as error:
                if errors.code_of(error) == errors.TIMEOUT:
                    break
                raise SourceUnavailable(errors.words(error)) from error
            code = {SINGLE_BIT: SINGLE_BIT_ECC, DOUBLE_BIT: DOUBLE_BIT_ECC}.get(event.eventType, int(event.eventData))
            found.append(Fault(NAME, code, time.time(), uuid=self._uuids.get(_pointer(event.device))))
        return found

    def close(self) -> None:
        nvml, self._nvml, self._uuids = self._nvml, None, {}
        if nvml is None:
            return
        for release in ((nvml.nvmlEventSetFree, self._events), (nvml.nvmlShutdown,)):
            try:
                release[0](*release[1:])
            except nvml.NVMLError:
                continue
        self._events = None


def _pointer(handle: Any) -> int:
    """Return the address of a handle, which is the same for each handle of a GPU."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
