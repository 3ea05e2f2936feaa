"""What is enabled after an installation where the administrator has presets of their own."""

from pathlib import Path

import pytest

from tests.system.lab.container import booted
from tests.system.lab.machine import TARGET, Machine
from tests.system.lab.package import built_rpm, newer
from tests.system.lab.rpm import install_base, rpm

RELEASE = "trixie"

PRESET = "/etc/systemd/system-preset/10-site.preset"
DISABLED = ("queen-rbee.service", "queen-rbee.socket", "queen-rbee-metrics.socket", "queen-rbee-handoff.path")
ENABLED = (TARGET, "pool-managerd.service", "pool-managerd.socket", "engine-provisioner-pools.path")
OPT_IN = "llama-orch-suspend.path"


def states(machine: Machine) -> tuple[set[str], set[str]]:
    """Return the states of the units that the administrator wants disabled, and of the others."""
    disabled = {machine.show(unit, "UnitFileState") for unit in (*DISABLED, OPT_IN)}
    return disabled, {machine.show(unit, "UnitFileState") for unit in ENABLED}


def test_deb_follows_presets_of_the_administrator(suite: str, deb: Path, tmp_path: Path) -> None:
    with booted(suite, "presets") as container:
        machine = Machine(container)
        container.write(PRESET, "disable queen-rbee*\n")
        machine.install(deb)
        assert states(machine) == ({"disabled"}, {"enabled"})
        machine.systemctl("enable", "queen-rbee.socket")
        machine.systemctl("disable", "pool-managerd.socket")
        machine.install(newer(deb, tmp_path))
        assert machine.show("queen-rbee.service", "UnitFileState") == "disabled"
        assert machine.show("queen-rbee.socket", "UnitFileState") == "enabled", "an upgrade changes nothing"
        assert machine.show("pool-managerd.socket", "UnitFileState") == "disabled"
        container.check("apt-get", "purge", "-y", "llama-orch")
        left = container.check("find", "/etc/systemd/system", "/var/lib/systemd", "-name", "*queen-rbee*")
        assert left == ""


@pytest.mark.usefixtures("prerequisites")
def test_rpm_follows_presets_of_the_administrator() -> None:
    package = built_rpm()
    with booted("trixie", "presets-rpm") as container:
        machine = Machine(container)
        container.write(PRESET, "disable queen-rbee*\n")
        install_base(container)
        assert rpm(container, "--install", package).status == 0
        assert states(machine) == ({"disabled"}, {"enabled"})
