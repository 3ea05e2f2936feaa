"""Machines for the system tests: one for each module and release, booted when the first test needs it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engines.fixtures import skip_or_fail
from tests.engines.llama_server import Archive
from tests.system.lab.container import booted
from tests.system.lab.machine import TARGET, Machine, Pool
from tests.system.lab.package import built_deb
from tests.system.lab.prerequisites import missing
from tests.system.lab.rootfs import SUITES

TINY = "/srv/tiny.gguf"
SLOW = "/srv/slow.gguf"
POOLS = (Pool("default", TINY), Pool("slow", SLOW))


@pytest.fixture(scope="session", autouse=True)
def prerequisites() -> None:
    """Skip the system tests with the reason if no machine can be booted."""
    if problems := missing():
        skip_or_fail(f"system tests cannot run: {'; '.join(problems)}")


@pytest.fixture(scope="session")
def deb(prerequisites: None) -> Path:
    """The package under test."""
    return built_deb()


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian release under test."""
    return str(request.param)


@pytest.fixture(scope="module")
def bare(request: pytest.FixtureRequest, suite: str) -> Iterator[Machine]:
    """A machine without llama-orch."""
    name = request.path.stem.removeprefix("test_").replace("_", "-")
    with booted(suite, name) as container:
        yield Machine(container)


@pytest.fixture(scope="module")
def installed(bare: Machine, deb: Path) -> Machine:
    """A machine with the package installed, but not configured or started."""
    bare.install(deb)
    return bare


@pytest.fixture(scope="module")
def stocked(installed: Machine, llama_server_tar: Archive, tiny_model: Path, slow_model: Path) -> Machine:
    """A machine with the package, the engine's archive and the models."""
    installed.place(llama_server_tar, {TINY: tiny_model, SLOW: slow_model})
    return installed


@pytest.fixture(scope="module")
def serving(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """A machine that serves two pools: `default`, which is fast, and `slow`."""
    stocked.configure(llama_server_tar, *POOLS)
    stocked.systemctl("start", TARGET)
    for pool in POOLS:
        stocked.wait_until_served(pool.id)
    return stocked


@pytest.fixture
def undo() -> Iterator[Callable[..., object]]:
    """Register a call that restores the machine. The calls run in reverse order when the test ends."""
    with ExitStack() as stack:
        yield stack.callback
