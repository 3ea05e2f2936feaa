"""Faults and resets of GPUs as their sources report them, and the lines of the kernel log that tell of them. Pure."""

import re
from collections import Counter
from dataclasses import dataclass

from pool_managerd.gpus.xids import RECOVERY_CHANGED

XID_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9A-Fa-f:.]+)[^)]*\): (?P<code>[0-9]{1,6})\b(?P<text>.*)")
"""As in `NVRM: Xid (PCI:0000:10:1c): 79, pid=1234, name=llama-server, GPU has fallen off the bus.`"""
RECOVERY_LINE = re.compile(r"GPU recovery action changed from \S+ \([^)]*\) to \S+ \((?P<action>[^)]*)\)")
RESET_LINE = re.compile(r"GPU reset (?:executed|completed?|successful)\b(?!.*\bsuccess: false)")
UUID = re.compile(r"\bGPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
PCI = re.compile(r"\b[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\b")
TEXT_LIMIT = 200
KEYS_MAX = 4096


@dataclass(frozen=True)
class Fault:
    """One error of one GPU. `at_s` is the Unix time, `recovery` the recovery action that Xid 154 announces.

    The GPU has a `uuid` or a `pci` address, such as 0000:10:1c. `source` is `nvml` or `kernel`.
    """

    source: str
    code: int
    at_s: float
    uuid: str | None = None
    pci: str | None = None
    text: str = ""
    recovery: str | None = None


@dataclass(frozen=True)
class Reset:
    """A GPU was reset, or needs no recovery any more. `text` says how that is known."""

    at_s: float
    text: str
    uuid: str | None = None
    pci: str | None = None


Sighting = Fault | Reset


def sighting_of(message: str, at_s: float) -> Sighting | None:
    """Return what a line of the kernel log tells of a GPU, if anything."""
    if match := XID_LINE.match(message):
        text = match["text"].strip(" ,")[:TEXT_LIMIT]
        code, recovery = int(match["code"]), RECOVERY_LINE.search(match["text"])
        action = recovery["action"].lower().replace(" required", "").replace(" ", "_") if recovery else None
        if code == RECOVERY_CHANGED and action == "none":
            return Reset(at_s, "the driver needs no recovery of it any more", pci=address(match["pci"]))
        return Fault("kernel", code, at_s, pci=address(match["pci"]), text=text, recovery=action)
    if RESET_LINE.search(message):
        uuid, pci = UUID.search(message), PCI.search(message)
        if uuid or pci:
            name, place = uuid[0] if uuid else None, address(pci[0]) if pci else None
            return Reset(at_s, "the log reports a reset of it", name, place)
    return None


def address(pci: str) -> str:
    """Return a PCI address with a domain of four digits and without a function, in lower case."""
    domain, colon, rest = pci.lower().partition(":")
    if rest.count(":") == 0:  # old drivers leave the domain out
        domain, rest = "0000", f"{domain}{colon}{rest}"
    return f"{domain[-4:]}:{rest.partition('.')[0]}"


class Counts:
    """Counts faults that several sources report: the total of a fault is the largest count of any source."""

    def __init__(self) -> None:
        self.total: Counter[tuple[str, int]] = Counter()
        self._by_source: dict[str, Counter[tuple[str, int]]] = {}

    def realign(self, source: str) -> None:
        """Begin to count what `source` reports from now on, after it was opened."""
        self._by_source[source] = Counter(self.total)

    def add(self, source: str, device: str, code: int) -> bool:
        """Count a fault; whether no other source has reported it before. Bounded in devices and codes."""
        key, counts = (device, code), self._by_source.setdefault(source, Counter())
        if key not in counts and len(counts) >= KEYS_MAX:
            return False
        counts[key] += 1
        is_new = counts[key] > self.total[key]
        if is_new:
            self.total[key] = counts[key]
        return is_new
