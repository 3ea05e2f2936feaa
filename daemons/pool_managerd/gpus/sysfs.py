"""What the readers of AMD and Intel GPUs share: cards below /sys/class/drm, their files, and names of PCI devices."""

import re
from functools import lru_cache
from pathlib import Path

SYSFS = Path("/sys")
PCI_IDS = (Path("/usr/share/misc/pci.ids"), Path("/usr/share/hwdata/pci.ids"))
FILE_LIMIT = 4096
CARD = re.compile(r"card[0-9]+")


def text_of(path: Path) -> str | None:
    """Return the stripped content of a file of sysfs; None if it does not exist or the driver refuses. Blocks."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_LIMIT).decode("utf-8", "replace").strip() or None
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    """Return a file's integer, decimal or with 0x; None if it has none. Blocks."""
    content = text_of(path)
    try:
        return int(content, 0) if content else None
    except ValueError:
        return None


def cards(vendor: str, sysfs: Path = SYSFS) -> list[Path]:
    """Return the cards, without their connectors, of a PCI vendor such as `0x1002`, by PCI address. Blocks."""
    try:
        entries = [entry for entry in (sysfs / "class/drm").iterdir() if CARD.fullmatch(entry.name)]
    except OSError:
        return []
    mine = [card for card in entries if text_of(card / "device/vendor") == vendor]
    return sorted(mine, key=pci_address)


def pci_address(card: Path) -> str:
    """Return the address of a card, such as 0000:03:00.0. Blocks."""
    return (card / "device").resolve().name


def hwmon(card: Path) -> Path | None:
    """Return the directory with the card's sensors. Blocks."""
    return next(iter(sorted((card / "device/hwmon").glob("hwmon*"))), None)


def scaled(directory: Path | None, divisor: int, *names: str) -> float | None:
    """Return the number in the first of the files that has one, divided: hwmon counts in thousandths or millionths."""
    found = (number_of(directory / name) for name in names) if directory else ()
    return next((value / divisor for value in found if value is not None), None)


def degrees(directory: Path | None, *names: str) -> int | None:
    """Return a temperature in °C."""
    value = scaled(directory, 1000, *names)
    return None if value is None else round(value)


def has_display_device(vendor: str, sysfs: Path = SYSFS) -> bool:
    """Whether a display controller of the PCI vendor is plugged in, with or without a driver. Blocks."""
    for device in (sysfs / "bus/pci/devices").glob("*"):
        if text_of(device / "vendor") == vendor and (text_of(device / "class") or "").startswith("0x03"):
            return True
    return False


def device_name(card: Path, vendor: str, fallback: str) -> str:
    """Return the card's product name, or its name in the PCI database, or `fallback` with its PCI id. Blocks."""
    device = text_of(card / "device/device") or "unknown"
    return text_of(card / "device/product_name") or pci_name(vendor, device) or f"{fallback} {device}"


@lru_cache(maxsize=64)
def pci_name(vendor: str, device: str, databases: tuple[Path, ...] = PCI_IDS) -> str | None:
    """Return the name of a device in pci.ids(5), as of the first call. Blocks."""
    vendor_key, device_key = vendor.removeprefix("0x").lower(), device.removeprefix("0x").lower()
    for database in databases:
        try:
            with database.open(encoding="utf-8", errors="replace") as lines:
                inside = False
                for line in lines:
                    if line[:1] not in "\t#\n":
                        if inside:
                            break
                        inside = line.startswith(vendor_key)
                    elif inside and line.startswith(f"\t{device_key} "):
                        return line[1 + len(device_key) :].strip()
        except OSError:
            continue
    return None
