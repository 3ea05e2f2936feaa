"""A crashed daemon leaves no core dump, whatever the limit of its unit is."""

import subprocess
import sys

PROGRAM = """
import ctypes
from llama_orch.service import core_dumps
core_dumps.disable()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_process_is_not_dumpable_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_daemons_are_not_dumpable() -> None:
    script = "from ctypes import CDLL\nfrom llama_orch.service import run\n"
    script += "run._parser = lambda daemon: exit(CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    script += "from queen_rbee.__main__ import main\nmain()\n"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0
