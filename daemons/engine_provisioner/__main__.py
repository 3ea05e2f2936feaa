"""The engine-provisioner command."""

import sys

from engine_provisioner.daemon import run
from engine_provisioner.plan.command import PLAN
from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.spec.pools_directory import path_for, read
from engine_provisioner.spec.pools_file import PoolsFileError
from llama_orch.service.configuration import ConfigurationRefusal
from llama_orch.service.run import Daemon
from llama_orch.service.run import main as run_daemon
from llama_orch.telemetry.events.provisioning import POOLS_FILE_REFUSED


def check(settings: ProvisionerSettings) -> ConfigurationRefusal | None:
    """Return all problems in the pools files."""
    path = path_for(settings.pools_config)
    try:
        read(path)
    except PoolsFileError as error:
        count = len(error.problems)
        headline = f"{count} problem{'s' * (count > 1)} in the pools file"
        return ConfigurationRefusal(headline, POOLS_FILE_REFUSED, error.problems)
    return None


DAEMON = Daemon(
    "engine-provisioner",
    "Fetches engines and models, starts engines, and announces them by handoff files.",
    ProvisionerSettings,
    run,
    check,
    commands=(PLAN,),
)


def main() -> int:
    """Run the console script; return the exit status."""
    return run_daemon(DAEMON)


if __name__ == "__main__":
    sys.exit(main())
