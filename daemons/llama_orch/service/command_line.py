"""The command line of every program here: argparse, with the exit status that sysexits(3) has for a wrong one."""

import argparse
from typing import NoReturn

from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import complain


class Parser(argparse.ArgumentParser):
    """argparse that ends with EX_USAGE, not 2, when the command line is wrong."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with EX_USAGE."""
        complain(f"{self.format_usage()}{self.prog}: {message}")
        raise SystemExit(ExitStatus.USAGE)
