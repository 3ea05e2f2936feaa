"""Configure with cmake and compile the target llama-server, continuing what an earlier attempt has left.

Owns a build directory. `interrupted` in it marks an attempt that did not end by itself.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from engine_provisioner.build.build_log import BuildLog
from engine_provisioner.build.processes import Job, OnLine, TimedOut, run
from engine_provisioner.build.recipe import TARGET, Recipe
from engine_provisioner.failures import ProvisioningFailure, Retry

SILENCE_S = 3600.0
"""A single file of CUDA kernels can take many minutes on a slow machine, without output."""
LIMIT_S = 8 * 3600.0
CONFIGURE_S = 900.0
MARK = "interrupted"
RECENT_S = 60.0
STEP = re.compile(r"\[(\d+)/(\d+)\] ")
PERCENT = re.compile(r"\[ *(\d+)%\] ")
KILLED = re.compile(r"Killed signal terminated program|\bKilled\b|out of memory", re.I)


@dataclass(frozen=True)
class Compilation:
    """A build of `source` in `directory`. `launcher` is ccache, if it is there."""

    source: Path
    directory: Path
    recipe: Recipe
    cmake: str
    launcher: str | None
    jobs: int
    env: Mapping[str, str]

    def configure_command(self) -> tuple[str, ...]:
        """Return the command that configures the build. ccache is no part of the recipe: it changes no result."""
        faster = [f"-DCMAKE_{language}_COMPILER_LAUNCHER={self.launcher}" for language in ("C", "CXX", "CUDA")]
        flags = (*(faster if self.launcher else ()), *self.recipe.flags)
        return (self.cmake, "-S", str(self.source), "-B", str(self.directory), "-G", self.recipe.generator, *flags)

    def build_command(self) -> tuple[str, ...]:
        """Return the command that compiles the target and nothing else."""
        return (self.cmake, "--build", str(self.directory), "--target", TARGET, "--parallel", str(self.jobs))


async def compile_engine(work: Compilation, log: BuildLog, on_line: OnLine) -> None:
    """Configure and compile. Raises ProvisioningFailure with the last lines of the log."""
    existed = await trio.to_thread.run_sync(_begin, work)
    status = await _run(work, work.configure_command(), CONFIGURE_S, log, on_line)
    if status != 0 and existed:  # a cache that an interrupted cmake has left half-written
        await trio.to_thread.run_sync(_start_over, work.directory)
        status = await _run(work, work.configure_command(), CONFIGURE_S, log, on_line)
    if status == 0:
        status = await _run(work, work.build_command(), LIMIT_S, log, on_line)
        await trio.to_thread.run_sync(_mark(work.directory).unlink)
        what = "compiling"
    else:
        what = "cmake"
    if status != 0:
        raise failure(f"{what} failed with status {status}", log)


def progress_in(line: str) -> str | None:
    """Return the progress that ninja or make prints in `line`, such as `34 of 208 steps` or `16 %`."""
    if step := STEP.match(line):
        return f"{step[1]} of {step[2]} steps"
    if percent := PERCENT.match(line):
        return f"{percent[1]} %"
    return None


def failure(what: str, log: BuildLog) -> ProvisioningFailure:
    """Return the failure of a build, with the last lines of its output and the path of the whole."""
    lines = log.tail()
    hint = f"The whole log: {log.path}"
    if any(KILLED.search(line) for line in lines):
        hint = f"A compiler was killed, probably for lack of memory. {hint}"
    shown = "\n".join(("", *lines, ""))
    return ProvisioningFailure(f"{what}; its last lines:{shown}{hint}", retry=Retry.AFTER_FIX)


async def _run(work: Compilation, argv: tuple[str, ...], limit_s: float, log: BuildLog, on_line: OnLine) -> int:
    job = Job(argv, work.directory, work.env, min(SILENCE_S, limit_s), limit_s)
    try:
        return await run(job, log, on_line)
    except TimedOut as error:
        raise failure(f"the build was stopped: {error}", log) from error


def _mark(directory: Path) -> Path:
    return directory / MARK


def _begin(work: Compilation) -> bool:
    """Mark the attempt as begun; return whether the directory has results of an earlier one."""
    existed = (work.directory / "CMakeCache.txt").exists()
    work.directory.mkdir(parents=True, exist_ok=True)
    if _mark(work.directory).exists() and "Ninja" not in work.recipe.generator:
        _remove_recent(work.directory)
    _mark(work.directory).touch()
    return existed


def _start_over(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()
    _mark(directory).touch()


def _remove_recent(directory: Path) -> None:
    """Remove the results that make may have been writing when it was killed.

    To make, a file that exists is complete; ninja keeps a log of what it has completed.
    """
    results = [path for path in directory.rglob("*") if path.suffix in (".o", ".a", ".so") or path.name == TARGET]
    times = {path: os.lstat(path).st_mtime for path in results if path.is_file()}
    latest = max(times.values(), default=0.0)
    for path, changed in times.items():
        if changed > latest - RECENT_S:
            path.unlink()
