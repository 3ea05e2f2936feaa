"""The table of GPU readers. To add a vendor, write a module with a `Reader` and add it here."""

from collections.abc import Callable, Mapping

from pool_managerd.gpus.amd_reader import AmdReader
from pool_managerd.gpus.intel_reader import IntelReader
from pool_managerd.gpus.nvml import real_nvml
from pool_managerd.gpus.nvml_reader import NvmlReader
from pool_managerd.gpus.reader import Reader

READERS: Mapping[str, Callable[[], Reader]] = {
    "nvidia": lambda: NvmlReader(real_nvml),
    "amd": AmdReader,
    "intel": IntelReader,
}
"""By vendor. The order is that of the indices which are not the vendor's own."""
