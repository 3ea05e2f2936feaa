"""The two homes that most tests here are content with; a module that needs another one has its own of the same name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home with a model of thousands of tokens a second."""
    with home(tmp_path_factory.mktemp("fast"), llama_server_tar, tiny_model) as running:
        yield running


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    """A home with a model slow enough to be left or cancelled."""
    with home(tmp_path_factory.mktemp("slow"), llama_server_tar, slow_model) as running:
        yield running
