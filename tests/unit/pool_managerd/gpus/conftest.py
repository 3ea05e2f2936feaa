"""Fixtures of the tests of GPUs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_managerd.gpus.nvml_reader import NvmlReader
from tests.gpus.imitation import ImitatedDriver
from tests.unit.pool_managerd.gpus.driver import imitated, nvml_reader


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImitatedDriver]:
    with imitated(tmp_path, monkeypatch) as shown:
        yield shown


@pytest.fixture
def reader(driver: ImitatedDriver) -> Iterator[NvmlReader]:
    """A reader of the imitation; closed at the end."""
    opened = nvml_reader()
    yield opened
    opened.close()
