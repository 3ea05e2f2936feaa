"""The .rpm on one machine, in this order: beside the .deb, contents, upgrade under load, erasure, over the .deb."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.llama_server import Archive
from tests.system.conftest import serve_pools
from tests.system.lab.client import complete
from tests.system.lab.container import booted
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, PROVISIONER_ENV, TARGET, Machine
from tests.system.lab.package import built_rpm
from tests.system.lab.repository import make, signing_key
from tests.system.lab.rpm import install_base, rpm

USERS = (*DAEMONS, "llama-engine")
ENGINE = "llama-engine@default.service"
COMPILED = "/usr/lib/llama-orch/lib/python3/site-packages/queen_rbee/__pycache__"

SOURCES = """\
Types: deb
URIs: file:/srv/apt
Suites: stable
Components: main
Signed-By: /srv/apt/llama-orch.gpg
"""
UPDATE = (
    "apt-get update --error-on=any -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/etc/apt/sources.list.d"
)


@pytest.fixture(scope="module")
def installed(prerequisites: None) -> Iterator[Machine]:
    """A machine with the .rpm."""
    package = built_rpm()
    with booted("trixie", "rpm") as container:
        install_base(container)
        done = rpm(container, "--install", package)
        assert (done.status, done.stderr) == (0, "")
        yield Machine(container)


@pytest.fixture(scope="module")
def serving(installed: Machine, llama_server_tar: Archive, models: dict[str, Path]) -> Machine:
    """The machine, serving pools."""
    installed.place(llama_server_tar, models)
    return serve_pools(installed, llama_server_tar)


def shipped(machine: Machine) -> list[str]:
    return machine.container.check("rpm", "--query", "--list", "llama-orch").splitlines()


def shipped_units(machine: Machine) -> list[str]:
    units = [file.rpartition("/")[2] for file in shipped(machine) if file.startswith("/usr/lib/systemd/system/")]
    return sorted(unit.replace("@.", "@default.") for unit in units)


def test_installation_enables_and_starts_nothing(installed: Machine) -> None:
    states = {unit: installed.show(unit, "ActiveState") for unit in shipped_units(installed)}
    assert len(states) > 15
    assert {unit for unit, state in states.items() if state != "inactive"} == set()
    enabled = [TARGET, "queen-rbee-metrics.socket", "pool-managerd-handoff.path", "engine-provisioner.service"]
    assert {installed.show(unit, "UnitFileState") for unit in enabled} == {"enabled"}


def test_users_directories_and_bytecode_are_there(installed: Machine) -> None:
    for user in USERS:
        assert installed.container.check("getent", "passwd", user)
    assert installed.container.path("/run/llama-orch/engines").is_dir()
    assert list(installed.container.path(COMPILED).glob("*.cpython-313.pyc"))


def test_installed_files_are_those_of_the_package(installed: Machine) -> None:
    assert installed.container.check("rpm", "--verify", "llama-orch") == ""
    for command in (*DAEMONS, "orchctl"):
        assert "llama-orch" in installed.container.check(command, "--version")
    assert "llama-orch-units" in installed.container.check("man", "-P", "cat", "queen-rbee.socket")
    assert "/usr/share/doc/llama-orch/html/orchctl.1.html" in shipped(installed)


def test_deb_is_refused_over_the_rpm(installed: Machine, deb: Path) -> None:
    installed.container.write(f"/root/{deb.name}", deb.read_bytes())
    done = installed.container.run("dpkg", "--install", f"/root/{deb.name}")
    assert done.status != 0
    assert "the .rpm of llama-orch is installed here" in done.stderr
    assert "rpm -e llama-orch" in done.stderr
    assert installed.container.check("rpm", "--verify", "llama-orch") == ""


def test_journal_has_fields_without_python_systemd(serving: Machine) -> None:
    python = ("/usr/lib/llama-orch/bin/python3", "-I", "-c", "import systemd")
    assert "ModuleNotFoundError" in serving.container.run(*python).stderr
    events = serving.journal("SYSLOG_IDENTIFIER=pool-managerd", "LLORCH_EVENT=pool_ready")
    assert {event["POOL_ID"] for event in events} == {"default", "slow"}
    assert all(event["MESSAGE_ID"] for event in events)
    assert serving.show("queen-rbee.service", "StatusText")


def test_upgrade_under_load_loses_no_request_or_engine(serving: Machine) -> None:
    newer = built_rpm(release=2)
    engine = serving.show(ENGINE, "MainPID")
    daemons = {serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS}
    edited = serving.container.path(PROVISIONER_ENV).read_text()

    def ask() -> str | None:
        answer = serving.queen.get("/health")
        return None if answer.status == 200 else f"status {answer.status}"

    with under_load(ask) as load:
        done = rpm(serving.container, "--upgrade", newer)
        load.wait_for_more()
    assert (done.status, done.stderr) == (0, "")
    assert load.failures == {}
    assert serving.container.check("rpm", "--query", "llama-orch").startswith("llama-orch-0.1.0-2.")
    assert not {serving.show(f"{daemon}.service", "MainPID") for daemon in DAEMONS} & {*daemons, "0"}
    assert serving.container.path(PROVISIONER_ENV).read_text() == edited
    serving.wait_until_served("default")
    assert serving.show(ENGINE, "MainPID") == engine
    assert complete(serving.queen).last.name == "end"


def test_erasure_stops_everything_and_keeps_the_settings(serving: Machine) -> None:
    files = [file for file in shipped(serving) if not file.startswith("/etc/llama-orch")]
    edited = serving.container.path(PROVISIONER_ENV).read_text()
    done = serving.container.run("rpm", "--erase", "llama-orch")
    assert done.status == 0, done.stderr
    assert [file for file in files if serving.container.path(file).exists()] == []
    units = serving.systemctl("list-units", "--all", "--no-legend", "--plain", *(f"{user}*" for user in USERS))
    assert units == ""
    for user in USERS:
        assert serving.container.run("pgrep", "--euid", user).stdout == "", f"a process of {user} is still running"
    assert serving.container.path(f"{PROVISIONER_ENV}.rpmsave").read_text() == edited


def test_apt_installs_from_the_signed_repository(serving: Machine, deb: Path, tmp_path: Path) -> None:
    with signing_key() as environment:
        shutil.copytree(make("apt", deb, tmp_path, environment), serving.container.path("/srv/apt"))
    serving.container.write("/etc/apt/sources.list.d/llama-orch.sources", SOURCES)
    serving.container.check("sh", "-c", UPDATE)
    serving.container.check("apt-get", "install", "-y", "llama-orch")
    release = serving.container.path("/srv/apt/dists/stable/InRelease")
    release.write_text(release.read_text().replace("Suite: stable", "Suite: forged"))
    refused = serving.container.run("sh", "-c", UPDATE)
    assert refused.status != 0
    assert "signature verification" in refused.stderr


def test_rpm_is_refused_over_the_deb(serving: Machine) -> None:
    done = rpm(serving.container, "--install", built_rpm())
    assert done.status != 0
    assert "the .deb of llama-orch is installed here" in done.stderr
    assert "apt remove llama-orch" in done.stderr
    assert serving.container.run("rpm", "--query", "llama-orch").status != 0
    assert serving.container.check("dpkg", "--verify", "llama-orch") == ""
