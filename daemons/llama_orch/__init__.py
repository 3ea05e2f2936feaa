"""Code shared by all daemons: settings, contracts, systemd integration, HTTP and telemetry.

A daemon never imports another daemon, so everything that two daemons must agree on is here.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("llama-orch")
except PackageNotFoundError:  # a source tree that was never installed
    VERSION = "0.0.0+source"
