"""Shared HOME_PROFILE fixtures. A module that needs other options overrides them with fixtures of the same names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home


@pytest.fixture(scope="session", autouse=True)
def _engines_with_one_thread() -> Iterator[None]:
    """Engines that tests start themselves get one thread, as those of homes do; see `ONE_THREAD`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_ARG_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home with a model that generates thousands of tokens per second."""
    with home(tmp_path_factory.mktemp("fast"), llama_server_tar, tiny_model) as running:
        yield running


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    """A home with a model slow enough to disconnect or cancel midway."""
    with home(tmp_path_factory.mktemp("slow"), llama_server_tar, slow_model) as running:
        yield running
