"""What all tests share: no test may leave a child process behind, and none fails because the machine is busy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.engines.fixtures"]

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


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
    """Fail a test that ends with more child processes than it began with."""
    before = children()
    yield
    leaked = children() - before
    assert not leaked, f"the test left child processes behind: {sorted(leaked)}"
