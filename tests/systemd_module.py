"""The distribution's Python module `systemd`, which `make venv` links into the virtual environment."""

import importlib
from typing import Any

from tests.engines.fixtures import skip_or_fail


def systemd_module(name: str) -> Any:
    """Return `systemd.NAME`. Skips the test without it, or fails it in CI."""
    try:
        return importlib.import_module(f"systemd.{name}")
    except ImportError as error:
        skip_or_fail(f"there is no module systemd.{name} ({error}): apt install python3-systemd, then make venv")
