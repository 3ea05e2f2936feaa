"""The engine-provisioner command."""

import sys

from engine_provisioner.daemon import run
from engine_provisioner.settings import ProvisionerSettings
from llama_orch.service.run import Daemon
from llama_orch.service.run import main as run_daemon

DAEMON = Daemon(
    "engine-provisioner",
    "Gets engines and models, has them run, and announces them by handoff files.",
    ProvisionerSettings,
    run,
)


def main() -> int:
    """The console script's entry; returns the exit status."""
    return run_daemon(DAEMON)


if __name__ == "__main__":
    sys.exit(main())
