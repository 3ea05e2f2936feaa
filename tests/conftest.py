"""Fixtures and hooks of all tests: signals, hypothesis profiles, and a check for leaked child processes."""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.engines.fixtures"]

# no deadline: a busy machine is not a fault. CI tries more examples than a run at one's desk.
settings.register_profile("local", deadline=None, max_examples=20)
settings.register_profile("ci", deadline=None, max_examples=30)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")


def pytest_configure() -> None:
    """Give SIGINT and SIGHUP their default handlers, which child processes inherit.

    A shell starts background jobs of a script with SIGINT ignored, and nohup ignores SIGHUP; the tests of signals
    would then fail.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured output encodable: xdist cannot send the lone surrogates of file names that are not UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def children() -> set[int]:
    """The process ids of this process's children, zombies included."""
    while True:
        try:
            tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
            return {int(pid) for task in tasks for pid in task.read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has ended meanwhile, and another one has its children now


@pytest.fixture(autouse=True)
def no_leaked_children() -> Iterator[None]:
    """Fail a test that ends with more child processes than it began with.

    It may replace one: daemons that several tests share are restarted by some.
    """
    before = children()
    yield
    after = children()
    assert len(after) <= len(before), f"the test left child processes behind: {sorted(after - before)}"
