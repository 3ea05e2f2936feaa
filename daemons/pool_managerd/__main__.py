"""The command pool-managerd."""

import sys

from llama_orch.http.tls.tls import check
from llama_orch.service.run import Daemon
from llama_orch.service.run import main as run_daemon
from pool_managerd.daemon import run
from pool_managerd.settings import PoolManagerSettings

SUMMARY = "Tracks this machine's GPUs and engines, and relays requests to the engines."
DAEMON = Daemon("pool-managerd", SUMMARY, PoolManagerSettings, run, check)


def main() -> int:
    """Run pool-managerd; return an exit status of sysexits(3)."""
    return run_daemon(DAEMON)


if __name__ == "__main__":
    sys.exit(main())
