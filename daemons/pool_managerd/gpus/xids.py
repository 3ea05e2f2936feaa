"""What the error codes of NVIDIA's driver (Xids) mean, and what to do.

Source: the Xid catalog for A100 to GB200, docs.nvidia.com/deploy/xid-errors.

Which of them are faults of applications: the list that NVIDIA's Kubernetes device plugin ignores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """APPLICATION: a fault of what runs on the GPU, counted. NOTICE: told. HARDWARE: the GPU is fenced."""

    APPLICATION = "application"
    NOTICE = "notice"
    HARDWARE = "hardware"


RESTART_APP = "restart the engines on it"
RESET = "stop its engines and pool-managerd, reset it (nvidia-smi --gpu-reset -i INDEX), and start them again"
REBOOT = "reboot the machine; if it happens again, the GPU, its power supply or its slot is faulty"
SUPPORT = "contact the vendor of the machine if it happens again"
CABLES = "check its power cables and how it sits in its slot, then reboot the machine"
LINKS = f"{RESET}; check the NVLink bridges, and contact the vendor if it happens again"
NOTHING = "nothing needs to be done"
WAIT = "reset the GPU at the next opportunity"

SINGLE_BIT_ECC = 0
"""Not an Xid: NVML's event for a corrected memory error."""
DOUBLE_BIT_ECC = 48
RECOVERY_CHANGED = 154
OTHER = "other"
"""The label of codes that are not in the table."""


@dataclass(frozen=True)
class Xid:
    """One code: its meaning, and what an operator should do."""

    meaning: str
    severity: Severity
    action: str


def _rows(severity: Severity, action: str, **meanings: str) -> dict[int, Xid]:
    return {int(code.removeprefix("x")): Xid(meaning, severity, action) for code, meaning in meanings.items()}


XIDS: Mapping[int, Xid] = {
    SINGLE_BIT_ECC: Xid("corrected single-bit memory error", Severity.APPLICATION, NOTHING),
    **_rows(
        Severity.APPLICATION,
        RESTART_APP,
        x13="graphics engine exception",
        x31="memory page fault: the engine accessed an invalid address",
        x43="the GPU stopped processing for an engine",
        x45="work was removed after another fault or a killed process",
        x68="video decoder exception",
        x109="context switch timeout",
    ),
    **_rows(
        Severity.NOTICE,
        RESTART_APP,
        x8="the GPU stopped processing",
        x11="invalid or corrupted push buffer",
        x32="invalid or corrupted push buffer",
        x38="driver firmware error",
        x44="graphics engine fault during a context switch",
        x69="graphics engine class error",
        x137="NVLink access to memory without permission",
    ),
    **_rows(Severity.NOTICE, SUPPORT, x61="microcontroller breakpoint", x121="error on the link between GPU and CPU"),
    **_rows(
        Severity.NOTICE,
        WAIT,
        x63="faulty memory was found and will be replaced by spare memory at the next reset",
        x156="faulty memory was taken out of use",
        x160="a faulty memory channel was taken out of use",
    ),
    **_rows(
        Severity.HARDWARE,
        RESET,
        x46="the GPU stopped processing and did not recover",
        x48="uncorrectable double-bit memory error",
        x62="microcontroller halted",
        x92="high rate of corrected memory errors",
        x95="uncontained memory error: all work on the GPU is affected",
        x110="security fault",
        x119="the GPU's system processor does not answer",
        x120="error of the GPU's system processor",
        x140="unrecovered memory error",
        x143="the GPU could not be initialised",
        x158="fatal timeout of the GPU",
        x171="uncorrectable error in the GPU's memory",
        x172="uncorrectable error in the GPU's caches",
    ),
    94: Xid("contained memory error: one engine is affected", Severity.HARDWARE, f"{RESTART_APP}, then {RESET}"),
    **_rows(
        Severity.HARDWARE,
        f"{RESET}; contact the vendor if it happens again",
        x64="faulty memory could not be replaced by spare memory",
        x157="faulty memory could not be taken out of use",
        x161="a faulty memory channel could not be taken out of use",
    ),
    **_rows(
        Severity.HARDWARE,
        LINKS,
        x74="NVLink error",
        x136="NVLink training failed",
        **{f"x{code}": "NVLink error" for code in range(144, 151)},
    ),
    54: Xid("auxiliary power is not connected", Severity.HARDWARE, CABLES),
    79: Xid("the GPU has fallen off the bus", Severity.HARDWARE, REBOOT),
    167: Xid("fatal timeout on the PCIe bus", Severity.HARDWARE, REBOOT),
    RECOVERY_CHANGED: Xid("the driver asks for a recovery of the GPU", Severity.NOTICE, RESET),
}

UNKNOWN = Xid("an error that this release does not know", Severity.NOTICE, "see NVIDIA's Xid catalog")

RECOVERY_ACTIONS: Mapping[str, str] = {
    "gpu_reset": RESET,
    "node_reboot": REBOOT,
    "drain_and_reset": RESET,
    "bus_reset": REBOOT,
    "system_reboot": REBOOT,
}
"""The recovery actions of the driver (NVML, Xid 154) that need an operator, and what to do."""


def xid(code: int) -> Xid:
    return XIDS.get(code, UNKNOWN)


def label(code: int) -> str:
    """Return a code as a label of metrics: bounded, whatever a driver may report."""
    if code == SINGLE_BIT_ECC:
        return "single_bit_ecc"
    return str(code) if code in XIDS else OTHER
