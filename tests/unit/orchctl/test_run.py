"""One run from beginning to end: whatever stands in its way, there are words, a status, and no traceback."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from orchctl.__main__ import main
from tests.unit.orchctl.running import LIMIT_S, command, environment, orchctl
from tests.unit.orchctl.scripted_queen import queen, reply

HELP = pytest.mark.parametrize("words", [("--help",), ("--version",), ("submit", "--help")])
DAEMONS_ONLY = ("queen_rbee", "quart", "hypercorn", "prometheus_client", "sqlite3", "readline")


def in_shell(script: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """`script` with orchctl's command line as its arguments; its output is buffered, as it is by default."""
    shell = ["bash", "-c", script, "bash", *command(*words)]
    return subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)


@HELP
def test_help_that_nobody_reads_to_its_end_is_quiet(words: tuple[str, ...]) -> None:
    ended = in_shell('"$@" | true; exit ${PIPESTATUS[0]}', *words)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


@HELP
def test_help_that_cannot_be_written_says_so(words: tuple[str, ...]) -> None:
    ended = in_shell('exec "$@" >/dev/full', *words)
    assert (ended.returncode, ended.stderr) == (
        74,
        "orchctl: cannot write to standard output: No space left on device\n",
    )


@pytest.mark.parametrize("where", ["/dev/full", ">(true)"])
def test_words_that_nobody_reads_change_nothing(where: str) -> None:
    ended = in_shell(f'"$@" 2> {where}', "pools", "--url", "http://127.0.0.1:9")
    assert (ended.returncode, ended.stdout, ended.stderr) == (69, "", "")


@pytest.mark.parametrize("module", ["orchctl.run", "orchctl.commands.tasks", "trio"])
def test_ctrl_c_while_it_loads_is_no_traceback(module: str) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_more: object) -> None:
            if name == module:
                raise KeyboardInterrupt

    others = {name: loaded for name, loaded in sys.modules.items() if not name.startswith(("orchctl", module))}
    with mock.patch.dict(sys.modules, others, clear=True), mock.patch("sys.meta_path", [Interrupted(), *sys.meta_path]):
        assert main(["tasks"]) == 130


def test_ctrl_c_between_a_coroutine_and_its_await_is_quiet() -> None:
    async def asking() -> None:
        """Nobody awaits it."""

    def interrupted(_arguments: object) -> int:
        forgotten = asking()
        del forgotten
        raise KeyboardInterrupt

    with warnings.catch_warnings(record=True) as told, mock.patch("orchctl.run.run", interrupted):
        warnings.simplefilter("always")
        assert main(["tasks"]) == 130
    assert told == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("words", [("tasks",), ("submit", "x"), ("chat", "--model", "m")])
def test_ctrl_c_while_it_connects_is_quiet(host: str, words: tuple[str, ...]) -> None:
    with deaf() as port:
        waiting = connecting(port)
        with subprocess.Popen(
            command(*words, "--url", f"http://{host}:{port}"),
            env=environment(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin
            process.stdin.write(b"hello\n")
            process.stdin.flush()
            deadline = time.monotonic() + LIMIT_S
            while connecting(port) <= waiting:
                assert time.monotonic() < deadline, "it does not connect"
            process.send_signal(signal.SIGINT)
            _out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (130, b"")


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """A port where connections are neither taken nor refused."""
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(3):
            client = open_sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


def connecting(port: int) -> int:
    """How many connections to `port` of this machine are begun and not there."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


def test_nothing_is_loaded_that_only_daemons_need() -> None:
    """A command starts in 0.3 s (measured), two thirds of it for trio and pydantic; each of these would add to it."""
    script = "import sys, orchctl.run; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert "orchctl" in loaded
    assert not loaded & set(DAEMONS_ONLY)


def test_the_status_of_a_run_is_the_one_of_the_process() -> None:
    with queen({"GET /v2/pools": [reply(200, {"pools": [], "count": 0})]}) as her:
        assert orchctl("pools", "--url", her.url).returncode == main(["pools", "--url", her.url]) == 0
    assert orchctl("pools", "--url", her.url).returncode == main(["pools", "--url", her.url]) == 69
