"""Code shared by all daemons: settings, contracts, systemd integration, HTTP and telemetry.

A daemon never imports another daemon, so everything that two daemons must agree on is here.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    VERSION: str


def __getattr__(name: str) -> str:
    """Return VERSION; the module that looks it up takes longer to import than the rest of `orchctl --help`."""
    if name == "VERSION":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llama-orch")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0.0.0+source"
