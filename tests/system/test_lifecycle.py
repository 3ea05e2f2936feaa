"""The package over time, on one machine and in this order: installed, upgraded while it serves, and purged."""

import re
from pathlib import Path

import pytest

from tests.system.lab.client import complete
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, Machine
from tests.system.lab.package import built_deb

USERS = (*DAEMONS, "llama-engine")
ENGINE = "llama-engine@default.service"

NOT_OF_THE_PACKAGE = re.compile(
    # what apt, dpkg and the machine itself keep, and what the test put there
    r"/(var/(log|lib/(dpkg|apt)|cache/(apt|debconf|man))|run/(log|systemd)|srv|root)(/.*)?"
    # backups of the user database, the journal's own index of catalogs, and polkit, which an engine's start wakes
    r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|/var/lib/systemd/catalog/database"
    r"|/var/tmp/systemd-private-[0-9a-f]+-polkit\.service-\w+(/tmp)?"
)


def files(machine: Machine) -> frozenset[str]:
    """Every path on the machine's disk and under /run."""
    return frozenset(machine.container.check("find", "/", "/run", "-xdev").splitlines())


@pytest.fixture(scope="module")
def files_before(bare: Machine) -> frozenset[str]:
    """What was on the machine before the package."""
    return files(bare)


@pytest.fixture(scope="module")
def installed(bare: Machine, deb: Path, files_before: frozenset[str]) -> Machine:
    """The machine with the package installed, after a look at what was there before."""
    bare.install(deb)
    return bare


@pytest.fixture(scope="session")
def newer_deb(prerequisites: None) -> Path:
    """A build of the same sources that counts as newer."""
    return built_deb("+b2")


def test_an_upgrade_under_load_loses_no_request_and_no_engine(serving: Machine, newer_deb: Path) -> None:
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


def test_a_purge_leaves_nothing_but_the_users(serving: Machine, files_before: frozenset[str]) -> None:
    serving.container.check("apt-get", "purge", "-y", "llama-orch")
    left = {path for path in files(serving) - files_before if not NOT_OF_THE_PACKAGE.fullmatch(path)}
    assert left == set()
    units = serving.systemctl("list-units", "--all", "--no-legend", "--plain", *(f"{user}*" for user in USERS))
    assert units == ""
    for user in USERS:
        assert serving.container.run("pgrep", "--euid", user).stdout == "", f"a process of {user} is left"
        assert serving.container.check("getent", "passwd", user)
