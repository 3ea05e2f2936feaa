"""The command line parser of all programs: argparse with exit status 64 (EX_USAGE) for errors."""

import argparse
from typing import NoReturn

from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import complain


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        complain(f"{self.format_usage()}{self.prog}: {message}")
        raise SystemExit(ExitStatus.USAGE)
