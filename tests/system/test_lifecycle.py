"""Installation, upgrade under load and purge of the package on one machine, in this order."""

import re
from pathlib import Path

import pytest

from tests.system.lab.client import complete
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, Machine
from tests.system.lab.package import built_deb

USERS = (*DAEMONS, "llama-engine")
ENGINE = "llama-engine@default.service"

UNRELATED_FILES = re.compile(
    # files of apt, dpkg and the machine, and of the test
    r"/(var/(log|lib/(dpkg|apt)|cache/(apt|debconf|man))|run/(log|systemd)|srv|root)(/.*)?"
    # backups of the user database, the journal's catalog index, and polkit, which the start of an engine activates
    r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|/var/lib/systemd/catalog/database"
    r"|/var/tmp/systemd-private-[0-9a-f]+-polkit\.service-\w+(/tmp)?"
)


def files(machine: Machine) -> frozenset[str]:
    """Return all paths on the machine's disk and under /run."""
    return frozenset(machine.container.check("find", "/", "/run", "-xdev").splitlines())


@pytest.fixture(scope="module")
def files_before(bare: Machine) -> frozenset[str]:
    """The files of the machine before the installation."""
    return files(bare)


@pytest.fixture(scope="module")
def installed(bare: Machine, deb: Path, files_before: frozenset[str]) -> Machine:
    """The machine with the package, installed after `files_before` was taken."""
    bare.install(deb)
    return bare


@pytest.fixture(scope="session")
def newer_deb(prerequisites: None) -> Path:
    """A package of the same sources with a newer version."""
    return built_deb("+b2")


def test_upgrade_under_load_loses_no_request_or_engine(serving: Machine, newer_deb: Path) -> None:
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
