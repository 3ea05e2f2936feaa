"""The programs that a build needs: where they are, and how to install those that are missing."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import trio

from engine_provisioner.engine import base_environment
from engine_provisioner.failures import ProvisioningFailure, Retry
from llama_orch.packages import Tool, install_command

CUDA_DIRECTORY = Path("/usr/local/cuda/bin")
"""Where NVIDIA's packages put nvcc, which is usually not on the PATH."""
LIMIT_S = 20.0
VERSION_COLUMNS = 120


GIT = Tool("git", apt="git", dnf="git-core")
CMAKE = Tool("cmake", apt="cmake", dnf="cmake")
NINJA = Tool("ninja", apt="ninja-build", dnf="ninja-build")
MAKE = Tool("make", apt="make", dnf="make")
C_COMPILER = Tool("cc", apt="g++", dnf="gcc-c++")
CXX_COMPILER = Tool("c++", apt="g++", dnf="gcc-c++")
CUDA_COMPILER = Tool("nvcc", apt="nvidia-cuda-toolkit", dnf="cuda-toolkit")
CCACHE = Tool("ccache", apt="ccache", dnf="ccache")

Found = Mapping[Tool, str]
"""The path of each tool."""


def find(tools: Iterable[Tool]) -> tuple[dict[Tool, str], list[Tool]]:
    """Return the paths of the tools that are there, and the other tools. Blocks on the disk."""
    path = base_environment()["PATH"]
    found, missing = {}, []
    for tool in dict.fromkeys(tools):
        where = [path, str(CUDA_DIRECTORY)] if tool is CUDA_COMPILER else [path]
        if place := next(filter(None, (shutil.which(tool.program, path=each) for each in where)), None):
            found[tool] = place
        else:
            missing.append(tool)
    return found, missing


def missing_failure(missing: Sequence[Tool], why: str = "") -> ProvisioningFailure:
    """Return the failure that names all missing tools and the command that installs them."""
    names = ", ".join(tool.program for tool in missing)
    message = f"building the engine needs {names}, which {'are' if len(missing) > 1 else 'is'} not installed{why}"
    return ProvisioningFailure(message, f"Install them: {install_command(missing)}", Retry.AFTER_FIX)


async def version_of(program: str) -> str:
    """Return the line of `program --version` that names the version, or `unknown`."""
    try:
        with trio.fail_after(LIMIT_S):
            done = await trio.run_process(
                [program, "--version"],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                env=base_environment(),
            )
    except (OSError, trio.TooSlowError):
        return "unknown"
    return version_in(done.stdout.decode(errors="replace"))


def version_in(text: str) -> str:
    """Return the line with the version. nvcc prints a heading and a copyright before its line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    release = next((line for line in lines if re.search(r"\brelease \d", line)), None)
    return (release or (lines[0] if lines else "unknown"))[:VERSION_COLUMNS]
