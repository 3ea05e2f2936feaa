"""queen-rbee's command line."""

import sys

from llama_orch.http.tls.tls import check
from llama_orch.service.run import Daemon
from llama_orch.service.run import main as run_daemon
from queen_rbee.daemon import run
from queen_rbee.settings import QueenSettings

SUMMARY = "The control plane: takes inference tasks, places and streams them."
DAEMON = Daemon("queen-rbee", SUMMARY, QueenSettings, run, check)


def main() -> int:
    """Run queen-rbee; the exit status is one of sysexits(3)."""
    return run_daemon(DAEMON)


if __name__ == "__main__":
    sys.exit(main())
