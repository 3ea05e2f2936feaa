"""Programs of the test suite that run in the network of a machine, such as imitations of servers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.lab.container import Container

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def served_inside(container: Container, module: str, *arguments: str) -> Iterator[str]:
    """Run `python -m MODULE` in the machine's network for the duration of the block; yield the first line it prints.

    It is a process of the host, and so survives the end of the machine's processes, but not that of its network.
    """
    enter = ["setpriv", "--pdeathsig", "KILL", "nsenter", "--target", str(container.init), "--net"]
    command = [*enter, sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()
