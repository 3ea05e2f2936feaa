"""orchctl as a process."""

import os
import subprocess
import sys

LIMIT_S = 30


def environment(**given: str) -> dict[str, str]:
    """Nothing of the test's own environment but what Python needs."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C.UTF-8", **given}


def command(*arguments: str) -> list[str]:
    """orchctl's command line."""
    return [sys.executable, "-m", "orchctl", *arguments]


def orchctl(*arguments: str, stdin: bytes = b"", **given: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; whatever happens, no traceback."""
    ended = subprocess.run(
        command(*arguments), input=stdin, env=environment(**given), capture_output=True, timeout=LIMIT_S, check=False
    )
    out, err = ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
    assert "Traceback" not in out + err, err
    assert "Exception ignored" not in err, err
    return subprocess.CompletedProcess(ended.args, ended.returncode, out, err)
