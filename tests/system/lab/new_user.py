"""A machine of somebody who has just got the package: what the internet would give is there, and nothing is configured.

The hub of models and the index of Python packages are imitations on the machine, which the environment of
engine-provisioner and pip names. Everything else is as on any Debian with the recommended packages.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine_provisioner.spec.drafts import XLLAMACPP
from tests.engines.wheels import wheels
from tests.system.lab.container import Container, booted
from tests.system.lab.inside import served_inside

RECOMMENDED = ("python3-venv", "libgomp1")
"""Packages that apt would fetch with the .deb."""
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
WHEELS = "/srv/wheels"
HOME = "/home/user"
PIP = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}


@dataclass(frozen=True)
class NewUser:
    """The machine, with the .deb in /root and an account `user`."""

    container: Container


@contextmanager
def machine_of_new_user(
    suite: str, name: str, deb: Path, repositories: Path, *python: str, environment: Mapping[str, str] | None = None
) -> Iterator[NewUser]:
    """Boot the machine for the duration of the block.

    `repositories` has the models of the hub, as ORG/REPO/FILE. `python` are packages that pip finds besides the engine.
    `environment` is added to that of engine-provisioner. Raises the exceptions of `booted`, and WheelsUnavailable.
    """
    found = wheels(PYTHONS[suite], f"xllamacpp=={XLLAMACPP}", *python)
    with (
        booted(suite, name, packages=RECOMMENDED) as container,
        served_inside(container, "tests.imitations.hub", str(repositories)) as hub,
    ):
        container.write(f"/root/{deb.name}", deb.read_bytes())
        for wheel in found.iterdir():
            container.write(f"{WHEELS}/{wheel.name}", wheel.read_bytes())
        container.write("/etc/apt/apt.conf.d/yes", 'APT::Get::Assume-Yes "true";\nDpkg::Use-Pty "0";\n')
        given = {"HF_ENDPOINT": hub, **PIP, **(environment or {})}
        lines = "".join(f"Environment={variable}={value}\n" for variable, value in given.items())
        container.write("/etc/systemd/system/engine-provisioner.service.d/internet.conf", f"[Service]\n{lines}")
        container.check("useradd", "--create-home", "--home-dir", HOME, "user")
        yield NewUser(container)
