"""Calls of NVML by pynvml, with the difference between what a driver does not support and a GPU that it has lost."""

import ctypes
import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

LIBRARY = "libnvidia-ml.so.1"
NOT_SUPPORTED, FUNCTION_NOT_FOUND, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, TIMEOUT, GPU_IS_LOST = 3, 13, 9, 12, 10, 15
"""Values of nvmlReturn_t."""


class Nvml(Protocol):
    """The module pynvml. Its functions raise NVMLError, whose `value` is an nvmlReturn_t."""

    NVMLError: type[Exception]

    def __getattr__(self, name: str) -> Callable[..., Any]: ...


def real_nvml() -> Nvml:
    """Import pynvml. Done late and in a thread, and only if the NVML library exists: it is a large module.

    Raises OSError if the library is missing.
    """
    ctypes.CDLL(LIBRARY)
    return cast(Nvml, importlib.import_module("pynvml"))


def code_of(error: Exception) -> int:
    """Return the nvmlReturn_t of an NVMLError."""
    return int(getattr(error, "value", 999))


def words(error: Exception) -> str:
    """Describe an error of NVML, with what to do about those that have a known remedy."""
    hints = {
        18: "the driver was updated while the old one is loaded; reboot, or unload its modules and load them again",
        DRIVER_NOT_LOADED: "load it with modprobe nvidia, and see journalctl -k",
        4: "this user may not open /dev/nvidia*",
    }
    hint = hints.get(code_of(error))
    return f"NVML reports: {error}" + (f" ({hint})" if hint else "")


def text(value: object) -> str:
    """Return a string of NVML, which older releases of pynvml return as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
