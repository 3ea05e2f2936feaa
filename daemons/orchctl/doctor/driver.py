"""The NVIDIA driver: whether kernel module and library are there and fit together."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio
from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.packages import Tool, install_command
from orchctl.check.findings import Finding, ok, problem
from orchctl.child import output_of
from orchctl.doctor.site import Site, Unknown

PCI = Path("/sys/bus/pci/devices")
MODULE = Path("/proc/driver/nvidia/version")
NVIDIA, DISPLAY, ACCELERATOR = "0x10de", "0x03", "0x12"
DRIVER = Tool("nvidia-smi", apt="nvidia-driver", dnf="akmod-nvidia")
LIBRARY = Tool("libnvidia-ml.so.1", apt="libnvidia-ml1", dnf="xorg-x11-drv-nvidia-cuda-libs")
MISMATCH, NO_DRIVER = 18, 9
"""Results of nvmlInit: NVML_ERROR_LIB_RM_VERSION_MISMATCH and NVML_ERROR_DRIVER_NOT_LOADED."""

PROBE = """
import ctypes, json
try:
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
except OSError as error:
    print(json.dumps({"error": str(error)}))
    raise SystemExit
text, number, gpus = ctypes.create_string_buffer(96), ctypes.c_int(), ctypes.c_uint()
found = {"status": nvml.nvmlInit_v2()}
if found["status"] == 0:
    if nvml.nvmlSystemGetDriverVersion(text, 96) == 0:
        found["driver"] = text.value.decode(errors="replace")
    if nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(number)) == 0:
        found["cuda"] = number.value
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(gpus)) == 0:
        found["gpus"] = gpus.value
print(json.dumps(found))
"""
"""Runs in a process of its own: a driver that hangs in the kernel would hold this one."""


class Nvml(Outbound):
    """What NVML says. `error` is why it cannot be loaded; `cuda` is 1000 times the major version plus 10 times the
    minor."""

    error: str | None = None
    status: int = 0
    driver: str | None = None
    cuda: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Driver:
    """`hardware` is the number of NVIDIA GPUs on the PCI bus, `module` the version of the loaded kernel module."""

    hardware: int
    module: str | None
    nvml: Nvml | Unknown


async def observe_driver(_site: Site) -> Driver | Unknown:
    hardware, module = await trio.to_thread.run_sync(_hardware, abandon_on_cancel=True)
    if not hardware and module is None:
        return Driver(0, None, Nvml())
    probe = await output_of(sys.executable, "-I", "-c", PROBE, limit_s=4.0)
    if probe.status is None:
        return Driver(hardware, module, Unknown(probe.problem.replace(sys.executable, "the library of the driver")))
    try:
        return Driver(hardware, module, Nvml.model_validate_json(probe.out))
    except ValidationError:
        return Driver(hardware, module, Unknown("the library of the driver crashed"))


def _hardware() -> tuple[int, str | None]:
    """Return the number of NVIDIA GPUs and the version of the kernel module. Blocks."""
    count = 0
    for device in sorted(PCI.glob("*"))[:4096]:
        try:
            kind = (device / "class").read_text()
            count += (device / "vendor").read_text().strip() == NVIDIA and kind.startswith((DISPLAY, ACCELERATOR))
        except OSError:
            continue
    try:
        match = re.search(r"\b(\d{3,4}\.\d+(?:\.\d+)?)\b", MODULE.read_text())
    except OSError:
        return count, None
    return count, match[1] if match else "unknown"


def driver_findings(driver: Driver) -> Iterator[Finding]:
    """Yield nothing on a machine without NVIDIA GPUs."""
    nvml = driver.nvml
    if not driver.hardware and driver.module is None:
        return
    if driver.module is None:
        mend = f"modprobe nvidia; if that fails, install the driver ({install_command([DRIVER])}) and reboot"
        yield problem("driver", f"{driver.hardware} NVIDIA GPUs, but the module nvidia is not loaded", mend)
    elif isinstance(nvml, Unknown):
        yield problem("driver", f"the NVIDIA driver {driver.module} does not answer: {nvml.reason}", "Reboot.")
    elif nvml.error:
        yield problem("driver", f"NVML cannot be loaded: {nvml.error}", install_command([LIBRARY]))
    elif nvml.status == MISMATCH or (nvml.driver and driver.module not in ("unknown", nvml.driver)):
        text = f"the loaded module is {driver.module}, and the library is of another release"
        yield problem("driver", text, "Reboot, so that the module of the upgraded driver is loaded.")
    elif nvml.status:
        name = "the driver is not loaded" if nvml.status == NO_DRIVER else f"status {nvml.status}"
        yield problem("driver", f"NVML does not start: {name}", "nvidia-smi and journalctl -k -b -g NVRM tell more.")
    elif driver.hardware and not nvml.gpus:
        text = f"{driver.hardware} NVIDIA GPUs, but the driver shows none"
        yield problem("driver", text, "journalctl -k -b -g NVRM")
    else:
        cuda = f", CUDA {nvml.cuda // 1000}.{nvml.cuda % 1000 // 10}" if nvml.cuda else ""
        yield ok("driver", f"NVIDIA {nvml.driver or driver.module}{cuda}, {nvml.gpus} GPUs")
