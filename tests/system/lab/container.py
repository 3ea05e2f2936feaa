"""A booted Debian container with systemd as pid 1 and its own network."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.lab.claim import claim, control_group, end, overlay
from tests.system.lab.rootfs import rootfs
from tests.system.lab.waiting import until

COMMAND_LIMIT_S = 120
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
BOOTED = ("running", "degraded")


class CommandFailed(Exception):
    """A command in a container failed. The message contains its output."""


@dataclass(frozen=True)
class Result:
    """Exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Container:
    """A running machine. `init` is the pid of its systemd in the host's pid namespace."""

    suite: str
    directory: Path
    init: int

    def run(self, *command: str, stdin: str = "", limit_s: float = COMMAND_LIMIT_S) -> Result:
        """Run `command` as root in the machine, for at most `limit_s` seconds (then the status is 124 or 137)."""
        # The limit applies inside the machine: killing nsenter would leave the command running.
        limit = ["timeout", "--kill-after=5", str(limit_s)]
        enter = ["nsenter", "--target", str(self.init), "--all", "--wdns=/"]
        words = [*enter, "/usr/bin/env", "--ignore-environment", *ENVIRONMENT, *limit, *command]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, errors="replace", check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    def check(self, *command: str, stdin: str = "", limit_s: float = COMMAND_LIMIT_S) -> str:
        """Run `command` and return its standard output. Raises CommandFailed if the status is not 0."""
        result = self.run(*command, stdin=stdin, limit_s=limit_s)
        if result.status != 0:
            output = (result.stdout + result.stderr).strip()
            raise CommandFailed(f"{' '.join(command)}: status {result.status}\n{output}")
        return result.stdout

    def path(self, inside: str) -> Path:
        """Return the host's path of a file in the container, including /run and /tmp."""
        return Path(f"/proc/{self.init}/root") / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file owned by root, and create its directories."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def power_off(self) -> None:
        """Kill all processes of the machine at once, as a power failure does."""
        end(self.directory)


@contextmanager
def booted(suite: str, name: str, *snapshot: Path, packages: tuple[str, ...] = ()) -> Iterator[Container]:
    """Run a new machine of `suite`, with these packages besides the usual ones, for the duration of the block.

    It is removed completely afterwards.

    It has the files of the release, and those of `snapshot` if there is one. Raises CalledProcessError,
    RootfsUnavailable or TimeoutError (with its console output).
    """
    lower = rootfs(suite, packages)
    with claim(f"{name}-{suite}-{os.getpid()}") as directory:
        overlay(directory).mount(*snapshot, lower)
        nspawn = _start(directory, f"{name}-{suite}")
        try:
            container = Container(suite, directory, _init_of(nspawn, directory))
            until(lambda: _is_booted(container), f"{suite} to boot", 60)
            yield container
        finally:
            # The machine has nothing that needs an orderly shutdown.
            nspawn.kill()
            nspawn.wait()


@contextmanager
def booted_again(container: Container) -> Iterator[Container]:
    """Boot a machine that was powered off, with the files that it had, for the duration of the block.

    The block lies in that of `booted`. Its network is a new one. Raises TimeoutError (with its console output).
    """
    control_group(container.directory).remove()
    nspawn = _start(container.directory, container.directory.name)
    try:
        again = Container(container.suite, container.directory, _init_of(nspawn, container.directory))
        until(lambda: _is_booted(again), f"{container.suite} to boot again", 60)
        yield again
    finally:
        nspawn.kill()
        nspawn.wait()


def _start(directory: Path, hostname: str) -> subprocess.Popen[bytes]:
    group = control_group(directory)
    group.create()
    root = overlay(directory).root
    # The machine shares nothing with the host, and the kernel kills it when the test run ends.
    command = ["setpriv", "--pdeathsig", "KILL", "systemd-nspawn", "--quiet", f"--directory={root}"]
    command += [f"--machine={directory.name}", f"--hostname={hostname}", "--private-network", "--register=no"]
    command += ["--keep-unit", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--boot", "--console=pipe"]
    with (directory / "console").open("wb") as console:
        return subprocess.Popen(
            group.command(command),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""


def _init_of(nspawn: subprocess.Popen[bytes], directory: Path) -> int:
    """Return the pid of the container's systemd, which is the child of systemd-nspawn."""
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")

    def find() -> int | None:
        if nspawn.poll() is not None:
            raise TimeoutError(f"systemd-nspawn exited at once:\n{(directory / 'console').read_text(errors='replace')}")
        pids = [int(pid) for pid in children.read_text().split()]
        return next((pid for pid in pids if _name_of(pid) == "systemd"), None)

    return until(find, "systemd to start in the container")


def _is_booted(container: Container) -> bool:
    return container.run("systemctl", "is-system-running", "--wait").stdout.strip() in BOOTED
