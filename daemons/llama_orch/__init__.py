"""What all daemons of llama-orch share: settings, contracts, the systemd side, HTTP and telemetry.

A daemon never imports another daemon; whatever two of them must agree on lives here.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("llama-orch")
except PackageNotFoundError:  # running from a source tree that was never installed
    VERSION = "0.0.0+source"
