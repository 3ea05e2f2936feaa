"""Tests of the test machines themselves."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.engines.cache import cache_root
from tests.system.lab import claim, prerequisites
from tests.system.lab.client import Client
from tests.system.lab.container import CommandFailed, Container, booted
from tests.system.lab.package import ROOT
from tests.system.lab.rootfs import SUITES
from tests.system.lab.waiting import until

BOOT_AND_WAIT = """
from tests.system.lab.container import booted
with booted("bookworm", "killed") as container:
    print(container.directory, flush=True)
    input()
"""


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """A machine of the first release."""
    with booted(SUITES[0], "rig") as machine:
        yield machine


def test_command_returns_status_and_output(container: Container) -> None:
    result = container.run("sh", "-c", "cat; echo err >&2; exit 3", stdin="out\n")
    assert (result.status, result.stdout, result.stderr) == (3, "out\n", "err\n")
    with pytest.raises(CommandFailed, match=r"false: status 1"):
        container.check("false")


def test_hanging_command_is_killed_in_machine(container: Container) -> None:
    assert container.run("sleep", "1000", limit_s=0.2).status == 124
    assert container.run("pgrep", "--exact", "sleep").stdout == ""


def test_written_file_is_visible_in_machine(container: Container) -> None:
    for path in ("/etc/llama/file", "/run/llama/file"):
        container.write(path, "content", mode=0o640)
        assert container.check("stat", "--format=%a %U", path) == "640 root\n"
        assert container.check("cat", path) == "content"


def serve_suite_name(container: Container) -> None:
    container.write("/srv/web/suite", container.suite)
    server = ("python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/srv/web", "8080")
    container.check("systemd-run", *server)
    until(lambda: container.run("curl", "--silent", "http://127.0.0.1:8080/").status == 0, "the server to listen")


def test_client_reaches_each_of_two_machines_on_same_port(container: Container) -> None:
    with booted(SUITES[1], "rig") as other:
        for machine in (container, other):
            serve_suite_name(machine)
        assert [Client(machine).get("/suite").body for machine in (container, other)] == [*SUITES]


def test_leftovers_of_killed_run_are_removed(container: Container) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", BOOT_AND_WAIT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    directory = Path(run.stdout.readline().strip())
    assert claim.overlay(directory).root.is_mount()
    run.kill()
    run.communicate()

    claim.sweep()
    assert not directory.exists()
    assert str(directory) not in Path("/proc/mounts").read_text()
    assert not any(group.exists() for group in claim.control_group(directory).directories)
    assert container.run("true").status == 0, "machines of this run are not removed"


def test_missing_programs_are_reported_with_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "PROGRAMS", {"no-such-program": "its-package"})
    assert prerequisites.missing() == ["no-such-program is missing; apt-get install its-package"]


def test_prerequisite_check_passes_and_leaves_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(dir=cache_root()) as directory:
        monkeypatch.setattr(prerequisites, "cache_root", lambda: Path(directory))
        assert prerequisites.missing() == []
        assert list(Path(directory).iterdir()) == []
