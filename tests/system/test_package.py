"""What the package puts on a machine: units that systemd finds no fault with, manual pages, a journal catalog."""

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
"""`systemd-analyze security` counts in tenths here: an exposure of at most 1.5."""


def shipped_units(machine: Machine) -> list[str]:
    """The unit files of the package; a template as the instance `default`."""
    files = machine.container.check("dpkg", "-L", "llama-orch").splitlines()
    kinds = (".service", ".socket", ".path", ".target", ".slice")
    units = [file.rpartition("/")[2] for file in files if "/systemd/system/" in file and file.endswith(kinds)]
    return sorted({unit.replace("@.", "@default.") for unit in units})


def test_nothing_runs_before_it_is_asked_to(installed: Machine) -> None:
    states = {unit: installed.show(unit, "ActiveState") for unit in shipped_units(installed)}
    assert {unit for unit, state in states.items() if state != "inactive"} == set()
    assert installed.show(TARGET, "UnitFileState") == "enabled"


def test_systemd_finds_no_fault_with_the_units(installed: Machine) -> None:
    units = shipped_units(installed)
    assert {f"{daemon}.service" for daemon in DAEMONS} < set(units)
    result = installed.container.run("systemd-analyze", "verify", *units)
    assert (result.status, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_is_little_exposed(installed: Machine, daemon: str) -> None:
    words = ("systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE_LIMIT}", f"{daemon}.service")
    result = installed.container.run(*words)
    assert result.status == 0, result.stdout


def test_every_manual_page_is_there_and_clean(installed: Machine) -> None:
    for section, names in PAGES.items():
        for name in names:
            page = installed.container.check("man", "--where", section, name).strip()
            command = f"zcat -f {page} | man --warnings -E UTF-8 -l -Tutf8 -Z - >/dev/null"
            rendered = installed.container.run("sh", "-c", command)
            assert (rendered.status, rendered.stderr) == (0, ""), page


def test_every_manual_page_is_found_by_the_name_of_the_suite(installed: Machine) -> None:
    installed.container.check("mandb", "--quiet", "--create")
    found = {line.split()[0] for line in installed.container.check("man", "-k", "llama").splitlines()}
    assert found >= {name for names in PAGES.values() for name in names}


def test_example_pools_file_is_where_messages_say(installed: Machine) -> None:
    assert "[[pools]]" in installed.container.check("cat", POOLS_EXAMPLE)


def test_every_command_says_what_it_is(installed: Machine) -> None:
    for command in (*DAEMONS, "orchctl"):
        assert "usage" in installed.container.check(command, "--help")
        assert "llama-orch" in installed.container.check(command, "--version")


def test_the_journal_explains_every_event(installed: Machine) -> None:
    ids = (event.message_id for event in CATALOG)
    listed = installed.container.run("journalctl", "--dump-catalog", *ids).stdout
    assert {event.name for event in CATALOG if event.advice not in listed} == set()


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_shipped_environment_is_a_good_one(installed: Machine, daemon: str) -> None:
    command = f"set -a; . /etc/llama-orch/{daemon}.env; exec {daemon} --check-config"
    assert "/run/llama-orch/engines" in installed.container.check("sh", "-c", command)
