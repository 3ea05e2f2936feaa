"""pytest fixtures: a real engine and models for it. `tests/conftest.py` names this module as a plugin."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests.engines.debian_packages import PackagesUnavailable
from tests.engines.llama_server import Archive, llama_server_archive, llama_server_directory
from tests.engines.tiny_model import SLOW, tiny_model


def leave_out(reason: str) -> NoReturn:
    """Skip with `reason`; where CI says that everything must run, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI runs every test, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """The executable of a real llama-server."""
    try:
        return llama_server_directory() / "bin/llama-server"
    except PackagesUnavailable as error:
        leave_out(f"there is no llama-server: {error}")


@pytest.fixture(scope="session")
def llama_server_tar(llama_server: Path) -> Archive:
    """The same llama-server as an archive with its checksum, for the provisioning mode `binary`."""
    return llama_server_archive()


@pytest.fixture(scope="session", name="tiny_model")
def tiny_model_path() -> Path:
    """A model of 0.8 MB that makes thousands of tokens in a second."""
    return tiny_model()


@pytest.fixture(scope="session")
def slow_model() -> Path:
    """A model of about 250 tokens/s, for cancelling, draining and queueing."""
    return tiny_model(SLOW)
