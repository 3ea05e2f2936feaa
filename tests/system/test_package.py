"""The package on one machine, in this order: contents after the installation, upgrade under load, purge."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_orch.contracts.pools import POOLS_EXAMPLE
from llama_orch.telemetry.events.catalog import CATALOG
from tests.engines.llama_server import Archive
from tests.system.conftest import serve_pools
from tests.system.lab.client import complete
from tests.system.lab.container import booted
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, TARGET, Machine
from tests.system.lab.package import newer
from tests.unit.manual_page import Page

PAGES = {
    "7": tuple(f"llama-orch{page}" for page in ("", "-monitoring", "-quickstart", "-security", "-units")),
    "8": DAEMONS,
    "5": ("llama-orch-pools", "llama-orch-handoff", *(f"{daemon}.env" for daemon in DAEMONS)),
    "1": ("orchctl",),
}
MAN = Path(__file__).parents[2] / "man"
HTML = "/usr/share/doc/llama-orch/html"
EXPOSURE_LIMIT = 15
"""In tenths, as `systemd-analyze security --threshold` expects: an exposure of at most 1.5."""
USERS = (*DAEMONS, "llama-engine")
ENGINE = "llama-engine@default.service"

UNRELATED_FILES = re.compile(
    # files of apt, dpkg and the machine, and of the test
    r"/(var/(log|lib/(dpkg|apt|rpm)|cache/(apt|debconf|man))|run/(log|systemd)|srv|root)(/.*)?"
    # backups of the user database, the journal's catalog index, and polkit, which the start of an engine activates
    r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|/var/lib/systemd/catalog/database"
    r"|/var/tmp/systemd-private-[0-9a-f]+-polkit\.service-\w+(/tmp)?"
)


def files(machine: Machine) -> frozenset[str]:
    """Return all paths on the machine's disk and under /run."""
    return frozenset(machine.container.check("find", "/", "/run", "-xdev").splitlines())


@pytest.fixture(scope="module")
def bare(suite: str) -> Iterator[Machine]:
    """A machine without llama-orch."""
    with booted(suite, "package") as container:
        yield Machine(container)


@pytest.fixture(scope="module")
def files_before(bare: Machine) -> frozenset[str]:
    """The files of the machine before the installation."""
    return files(bare)


@pytest.fixture(scope="module")
def installed(bare: Machine, deb: Path, files_before: frozenset[str]) -> Machine:
    """The machine with the package, installed after `files_before` was taken."""
    bare.install(deb)
    return bare


@pytest.fixture(scope="module")
def serving(installed: Machine, llama_server_tar: Archive, models: dict[str, Path]) -> Machine:
    """The machine, serving pools."""
    installed.place(llama_server_tar, models)
    return serve_pools(installed, llama_server_tar)


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


def test_exposure_of_services_is_as_documented(installed: Machine) -> None:
    entries = Page(MAN / "llama-orch-security.7").entries("SANDBOXES")
    documented = {name.replace("@.", "@default."): entry.text[:3] for entry in entries for name in entry.names}
    measured = {}
    for unit in documented:
        shown = installed.container.run("systemd-analyze", "security", "--no-pager", unit).stdout
        [measured[unit]] = re.findall(r"Overall exposure level for \S+: (\d\.\d)", shown)
    assert measured == documented


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


def test_man_finds_the_page_of_each_unit(installed: Machine) -> None:
    for unit in shipped_units(installed):
        name = unit.replace("@default.", "@.")
        assert "llama-orch-units" in installed.container.check("man", "-P", "cat", name), name


def test_manual_is_installed_as_html(installed: Machine) -> None:
    shipped = {path.name for path in installed.container.path(HTML).iterdir()}
    assert shipped == {"index.html", "style.css", *(f"{path.name}.html" for path in MAN.glob("*.[1-8]"))}


def test_apropos_finds_every_manual_page(installed: Machine) -> None:
    installed.container.check("mandb", "--quiet", "--create")
    found = {line.split()[0] for line in installed.container.check("man", "-k", "llama").splitlines()}
    assert found >= {name for names in PAGES.values() for name in names}


def test_example_pools_file_is_installed(installed: Machine) -> None:
    assert "[[pools]]" in installed.container.check("cat", POOLS_EXAMPLE)


@pytest.mark.parametrize("suite", ["trixie"], indirect=True)
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
    assert "/run/llama-orch/engines" in installed.container.check(daemon, "--check-config")


def test_queen_serves_the_manual(serving: Machine) -> None:
    assert serving.queen.get("/docs").headers["location"] == "docs/"
    assert "orchctl.1.html" in serving.queen.get("/docs/").body
    assert "command line client" in serving.queen.get("/docs/orchctl.1.html").body
    assert serving.queen.get("/docs/..%2fexamples%2fpools.toml").status == 404


def test_upgrade_under_load_loses_no_request_or_engine(serving: Machine, deb: Path, tmp_path: Path) -> None:
    newer_deb = newer(deb, tmp_path)
    engine = serving.show(ENGINE, "MainPID")
    daemons = {serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS}

    def ask() -> str | None:
        answer = serving.queen.get("/health")
        return None if answer.status == 200 else f"status {answer.status}"

    with under_load(ask) as load:
        serving.install(newer_deb)
        load.wait_for_more()
    assert load.failures == {}
    assert serving.container.check("dpkg-query", "-W", "llama-orch").strip().endswith("+b2")
    assert not {serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS} & {*daemons, "0"}
    serving.wait_until_served("default")
    assert serving.show(ENGINE, "MainPID") == engine
    assert complete(serving.queen).last.name == "end"


def test_purge_removes_everything_except_users(serving: Machine, files_before: frozenset[str]) -> None:
    serving.container.check("apt-get", "purge", "-y", "llama-orch")
    left = {path for path in files(serving) - files_before if not UNRELATED_FILES.fullmatch(path)}
    assert left == set()
    units = serving.systemctl("list-units", "--all", "--no-legend", "--plain", *(f"{user}*" for user in USERS))
    assert units == ""
    for user in USERS:
        assert serving.container.run("pgrep", "--euid", user).stdout == "", f"a process of {user} is still running"
        assert serving.container.check("getent", "passwd", user)
