"""A booted Debian: systemd as pid 1, a network of its own, commands run in it and files put into it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.lab.claim import claim, control_group, overlay
from tests.system.lab.rootfs import rootfs
from tests.system.lab.waiting import until

COMMAND_LIMIT_S = 120
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
BOOTED = ("running", "degraded")


class CommandFailed(Exception):
    """A command in a container ended with another status than 0; the message has its output."""


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit status, and what it wrote."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Container:
    """A running machine. `init` is the pid of its systemd as this machine counts."""

    suite: str
    directory: Path
    init: int

    def run(self, *command: str, stdin: str = "", limit_s: float = COMMAND_LIMIT_S) -> Result:
        """Run `command` as root in the machine, for at most `limit_s` seconds (then status 124 or 137)."""
        # the limit is kept inside: an nsenter that is killed leaves its command running
        limit = ["timeout", "--kill-after=5", str(limit_s)]
        enter = ["nsenter", "--target", str(self.init), "--all", "--wdns=/"]
        words = [*enter, "/usr/bin/env", "--ignore-environment", *ENVIRONMENT, *limit, *command]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, errors="replace", check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    def check(self, *command: str, stdin: str = "", limit_s: float = COMMAND_LIMIT_S) -> str:
        """As `run`: the standard output. Raises CommandFailed unless the status is 0."""
        result = self.run(*command, stdin=stdin, limit_s=limit_s)
        if result.status != 0:
            output = (result.stdout + result.stderr).strip()
            raise CommandFailed(f"{' '.join(command)}: status {result.status}\n{output}")
        return result.stdout

    def path(self, inside: str) -> Path:
        """The path under which this machine sees a file of the container, /run and /tmp included."""
        return Path(f"/proc/{self.init}/root") / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of root's, with its directories."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def power_off(self) -> None:
        """End everything in the machine at once, without a word to anybody."""
        control_group(self.directory).kill()


@contextmanager
def booted(suite: str, name: str) -> Iterator[Container]:
    """A fresh machine of `suite`, up while the block lasts; nothing of it is left afterwards.

    Raises CalledProcessError, RootfsUnavailable or TimeoutError (with the end of its console).
    """
    lower = rootfs(suite)
    with claim(f"{name}-{suite}-{os.getpid()}") as directory:
        overlay(directory).mount(lower)
        nspawn = _start(directory, f"{name}-{suite}")
        try:
            container = Container(suite, directory, _init_of(nspawn, directory))
            until(lambda: _is_booted(container), f"{suite} to boot", 60)
            yield container
        finally:
            # nothing in there is worth a shutdown
            nspawn.kill()
            nspawn.wait()


def _start(directory: Path, hostname: str) -> subprocess.Popen[bytes]:
    group = control_group(directory)
    group.create()
    root = overlay(directory).root
    # nothing of the host's is shared, and the machine ends with the run, however that ends
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


def _init_of(nspawn: subprocess.Popen[bytes], directory: Path) -> int:
    """The pid of the container's systemd, the child of systemd-nspawn."""
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")

    def find() -> int | None:
        if nspawn.poll() is not None:
            raise TimeoutError(f"systemd-nspawn ended at once:\n{(directory / 'console').read_text(errors='replace')}")
        pids = [int(pid) for pid in children.read_text().split()]
        return next((pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"), None)

    return until(find, "systemd to start in the container")


def _is_booted(container: Container) -> bool:
    return container.run("systemctl", "is-system-running").stdout.strip() in BOOTED
