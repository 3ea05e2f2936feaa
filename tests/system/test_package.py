"""Contents of the installed package: units, manual pages, journal catalog, commands."""

import pytest

from llama_orch.contracts.pools import POOLS_EXAMPLE
from llama_orch.telemetry.events.catalog import CATALOG
from tests.system.lab.machine import DAEMONS, TARGET, Machine

PAGES = {
    "7": ("llama-orch",),
    "8": DAEMONS,
    "5": ("llama-orch-pools", "llama-orch-handoff", *(f"{daemon}.env" for daemon in DAEMONS)),
    "1": ("orchctl",),
}
EXPOSURE_LIMIT = 15
"""In tenths, as `systemd-analyze security --threshold` expects: an exposure of at most 1.5."""


def shipped_units(machine: Machine) -> list[str]:
    """Return the units of the package, with the instance `default` for a template."""
    files = machine.container.check("dpkg", "-L", "llama-orch").splitlines()
    kinds = (".service", ".socket", ".path", ".target", ".slice")
    units = [file.rpartition("/")[2] for file in files if "/systemd/system/" in file and file.endswith(kinds)]
    return sorted({unit.replace("@.", "@default.") for unit in units})


def test_installation_starts_no_unit(installed: Machine) -> None:
    states = {unit: installed.show(unit, "ActiveState") for unit in shipped_units(installed)}
    assert {unit for unit, state in states.items() if state != "inactive"} == set()
    assert installed.show(TARGET, "UnitFileState") == "enabled"


def test_units_pass_systemd_analyze_verify(installed: Machine) -> None:
    units = shipped_units(installed)
    assert {f"{daemon}.service" for daemon in DAEMONS} < set(units)
    result = installed.container.run("systemd-analyze", "verify", *units)
    assert (result.status, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_daemon_exposure_is_within_limit(installed: Machine, daemon: str) -> None:
    words = ("systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE_LIMIT}", f"{daemon}.service")
    result = installed.container.run(*words)
    assert result.status == 0, result.stdout


def test_every_manual_page_renders_without_warnings(installed: Machine) -> None:
    for section, names in PAGES.items():
        for name in names:
            page = installed.container.check("man", "--where", section, name).strip()
            command = f"zcat -f {page} | man --warnings -E UTF-8 -l -Tutf8 -Z - >/dev/null"
            rendered = installed.container.run("sh", "-c", command)
            assert (rendered.status, rendered.stderr) == (0, ""), page


def test_apropos_finds_every_manual_page(installed: Machine) -> None:
    installed.container.check("mandb", "--quiet", "--create")
    found = {line.split()[0] for line in installed.container.check("man", "-k", "llama").splitlines()}
    assert found >= {name for names in PAGES.values() for name in names}


def test_example_pools_file_is_installed(installed: Machine) -> None:
    assert "[[pools]]" in installed.container.check("cat", POOLS_EXAMPLE)


def test_every_command_has_help_and_version(installed: Machine) -> None:
    for command in (*DAEMONS, "orchctl"):
        assert "usage" in installed.container.check(command, "--help")
        assert "llama-orch" in installed.container.check(command, "--version")


def test_journal_catalog_has_every_event(installed: Machine) -> None:
    ids = (event.message_id for event in CATALOG)
    listed = installed.container.run("journalctl", "--dump-catalog", *ids).stdout
    assert {event.name for event in CATALOG if event.advice not in listed} == set()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_shipped_environment_file_is_valid(installed: Machine, daemon: str) -> None:
    command = f"set -a; . /etc/llama-orch/{daemon}.env; exec {daemon} --check-config"
    assert "/run/llama-orch/engines" in installed.container.check("sh", "-c", command)
