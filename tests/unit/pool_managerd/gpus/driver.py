"""The imitation of NVML in the process of the tests, with the real pynvml."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pool_managerd.gpus.nvml import real_nvml
from pool_managerd.gpus.nvml_reader import NvmlReader
from tests.gpus.imitation import NAME, ImitatedDriver, library


@contextmanager
def imitated(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[ImitatedDriver]:
    """Load the imitation, so that NVML's name finds it, and show it the hardware in `directory`."""
    ctypes.CDLL(str(library() / NAME))
    driver = ImitatedDriver(directory / "hardware")
    patch.setenv("IMITATION_NVML", str(driver.state))
    yield driver


def nvml_reader() -> NvmlReader:
    return NvmlReader(real_nvml, has_hardware=lambda: True)
