"""pytest fixtures: a real engine and models for it. `tests/conftest.py` loads this module as a plugin."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests.engines.debian_packages import PackagesUnavailable
from tests.engines.llama_server import Archive, llama_server_archive, llama_server_directory
from tests.engines.tiny_model import SLOW, tiny_model


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test, or fail it if CI=true, where every test must run."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI runs every test, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """The executable of a real llama-server."""
    try:
        return llama_server_directory() / "bin/llama-server"
    except PackagesUnavailable as error:
        skip_or_fail(f"llama-server is not available: {error}")


@pytest.fixture(scope="session")
def llama_server_tar(llama_server: Path) -> Archive:
    """The same llama-server as an archive with its checksum, for the provisioning mode `binary`."""
    return llama_server_archive()


@pytest.fixture(scope="session", name="tiny_model")
def tiny_model_path() -> Path:
    """A model of 0.8 MB that produces thousands of tokens/s."""
    return tiny_model()


@pytest.fixture(scope="session")
def slow_model() -> Path:
    """A model that produces about 250 tokens/s, for tests of cancel, drain and queue."""
    return tiny_model(SLOW)
