"""Machines for the system tests: one for each module and release, booted when the first test needs it.

With `--dist loadfile`, the tests of a module and release run in the same process, because they share a machine.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from tests.engines.fixtures import skip_or_fail
from tests.engines.llama_server import Archive
from tests.system.lab.container import booted
from tests.system.lab.machine import TARGET, Machine, Pool
from tests.system.lab.package import built_deb
from tests.system.lab.prerequisites import missing
from tests.system.lab.rootfs import SUITES
from tests.system.lab.snapshot import snapshot

TINY = "/srv/tiny.gguf"
SLOW = "/srv/slow.gguf"
# With more, the threads of several engines would wait for each other and occupy all cores.
ONE_THREAD = 'flags = ["--threads", "1"]'
POOLS = (Pool("default", TINY, extra=ONE_THREAD), Pool("slow", SLOW, extra=ONE_THREAD))

LONGEST_FIRST = (
    "quickstart",
    "cluster",
    "quickstart",
    "serving",
    "modes",
    "operating",
    "package",
    "reference",
    "bad_input",
)
"""The order of the first modules, so that no long one is left to a single process at the end."""
LAST = len(LONGEST_FIRST) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Put the system tests first, sorted."""
    yield
    here = {item for item in items if item.path.parent == Path(__file__).parent}
    items.sort(key=lambda item: (_place(item), _release(item.name)) if item in here else (LAST, ""))


class LoadMachine(LoadFileScheduling):  # type: ignore[misc]
    """Distributes the tests of a module and release together, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return f"{super()._split_scope(nodeid)} {_release(nodeid)}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each release. A module with a RELEASE tests what does not depend on it, and runs on that one only.

    LLAMA_ORCH_TEST_RELEASES=all runs all modules on all releases, as before a release of llama-orch.
    """
    chosen = [mark for mark in metafunc.definition.iter_markers("parametrize") if mark.args[0] == "suite"]
    if "suite" not in metafunc.fixturenames or chosen:
        return
    release = getattr(metafunc.module, "RELEASE", None)
    only = release and os.environ.get("LLAMA_ORCH_TEST_RELEASES") != "all"
    metafunc.parametrize("suite", [release] if only else SUITES, indirect=True, scope="session")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadMachine | None:
    """Refine `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return LoadMachine(config, log)


def _place(item: pytest.Item) -> int:
    module = _module(item)
    return LONGEST_FIRST.index(module) if module in LONGEST_FIRST else LAST - 1


def _module(item: pytest.Item | pytest.Module) -> str:
    return item.path.stem.removeprefix("test_")


def _release(test: str) -> str:
    """Return the release that the test runs on, or "" if it chooses itself."""
    return next((suite for suite in SUITES if f"[{suite}" in test), "")


@pytest.fixture(scope="session", autouse=True)
def prerequisites() -> None:
    """Skip the system tests with the reason if no machine can be booted."""
    if problems := missing():
        skip_or_fail(f"system tests cannot run: {'; '.join(problems)}")


@pytest.fixture(scope="session")
def deb(prerequisites: None) -> Path:
    """The package under test."""
    return built_deb()


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian release under test."""
    return str(request.param)


@pytest.fixture(scope="session")
def models(tiny_model: Path, slow_model: Path) -> dict[str, Path]:
    """The models, by their path in a machine."""
    return {TINY: tiny_model, SLOW: slow_model}


@pytest.fixture(scope="module")
def stocked(
    request: pytest.FixtureRequest, suite: str, deb: Path, llama_server_tar: Archive, models: dict[str, Path]
) -> Iterator[Machine]:
    """A machine with the package, the engine and the models, but not configured or started."""
    with (
        snapshot(suite, deb, llama_server_tar, models) as files,
        booted(suite, _module(request.node).replace("_", "-"), files) as container,
    ):
        container.check("systemctl", "enable", TARGET)
        yield Machine(container)


@pytest.fixture(scope="module")
def serving(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """A machine that serves two pools: `default`, which is fast, and `slow`."""
    return serve_pools(stocked, llama_server_tar)


def serve_pools(machine: Machine, archive: Archive) -> Machine:
    """Configure the machine's pools, start them, and return the machine."""
    machine.configure(archive, *POOLS)
    machine.systemctl("start", TARGET)
    for pool in POOLS:
        machine.wait_until_served(pool.id)
    return machine


@pytest.fixture
def undo() -> Iterator[Callable[..., object]]:
    """Register a call that restores the machine. The calls run in reverse order when the test ends."""
    with ExitStack() as stack:
        yield stack.callback
