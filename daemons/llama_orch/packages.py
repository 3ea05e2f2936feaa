"""The packages that contain a program, and the command that installs them on this distribution."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MANAGERS = {"apt": ("debian", "ubuntu"), "dnf": ("fedora", "rhel", "centos")}
"""The distributions of each package manager, as ID and ID_LIKE of os-release(5) name them."""


@dataclass(frozen=True)
class Tool:
    """A program, and the packages that contain it."""

    program: str
    apt: str
    dnf: str


def install_command(missing: Sequence[Tool], release: Mapping[str, str] | None = None) -> str:
    """Return the command that installs the tools on the distribution with this os-release(5), by default this one.

    If no package manager of MANAGERS fits, it says in words what to install. Blocks on the disk.
    """
    known = os_release() if release is None else release
    family = [known.get("ID", ""), *known.get("ID_LIKE", "").split()]
    manager = next((name for name, ids in MANAGERS.items() if not set(ids).isdisjoint(family)), None)
    if manager is None:
        return f"the packages that contain {', '.join(tool.program for tool in missing)}"
    return f"{manager} install {' '.join(dict.fromkeys(getattr(tool, manager) for tool in missing))}"


def os_release() -> Mapping[str, str]:
    """Return os-release(5) of this machine, empty if it has none. Blocks."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
