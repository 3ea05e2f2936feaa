"""A run as a process: interruptions and unwritable output, without tracebacks."""

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
from tests.unit.orchctl.running import LIMIT_S, command, environment, run_process
from tests.unit.orchctl.scripted_queen import reply, serve

HELP = pytest.mark.parametrize("words", [("--help",), ("--version",), ("submit", "--help")])
POOLS = reply(200, {"pools": [], "count": 0})
TASKS = reply(200, {"tasks": [], "count": 0})
DAEMONS_ONLY = ("queen_rbee", "quart", "hypercorn", "prometheus_client", "sqlite3", "readline")


def in_shell(script: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `script` with orchctl's command line as its arguments; the output is buffered, as by default."""
    shell = ["bash", "-c", script, "bash", *command(*words)]
    return subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)


@HELP
def test_unread_help_is_quiet(words: tuple[str, ...]) -> None:
    result = in_shell('"$@" | true; exit ${PIPESTATUS[0]}', *words)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


@HELP
def test_unwritable_help_is_reported(words: tuple[str, ...]) -> None:
    result = in_shell('exec "$@" >/dev/full', *words)
    assert (result.returncode, result.stderr) == (
        74,
        "orchctl: cannot write to standard output: No space left on device\n",
    )


@pytest.mark.parametrize("where", ["/dev/full", ">(true)"])
def test_unreadable_stderr_changes_nothing(where: str) -> None:
    result = in_shell(f'"$@" 2> {where}', "pools", "--url", "http://127.0.0.1:9")
    assert (result.returncode, result.stdout, result.stderr) == (69, "", "")


@pytest.mark.parametrize("module", ["orchctl.run", "orchctl.commands.tasks", "trio"])
def test_ctrl_c_during_imports_exits_130(module: str) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_more: object) -> None:
            if name == module:
                raise KeyboardInterrupt

    others = {name: loaded for name, loaded in sys.modules.items() if not name.startswith(("orchctl", module))}
    with mock.patch.dict(sys.modules, others, clear=True), mock.patch("sys.meta_path", [Interrupted(), *sys.meta_path]):
        assert main(["tasks"]) == 130


def test_ctrl_c_before_await_is_quiet() -> None:
    async def never_awaited() -> None:
        """Never awaited."""

    def interrupted(_arguments: object) -> int:
        forgotten = never_awaited()
        del forgotten
        raise KeyboardInterrupt

    with warnings.catch_warnings(record=True) as caught, mock.patch("orchctl.run.run", interrupted):
        warnings.simplefilter("always")
        assert main(["tasks"]) == 130
    assert caught == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("words", [("tasks",), ("submit", "x"), ("chat", "--model", "m")])
def test_ctrl_c_while_connecting_is_quiet(host: str, words: tuple[str, ...]) -> None:
    with full_backlog() as port:
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
                assert time.monotonic() < deadline, "orchctl does not connect"
            process.send_signal(signal.SIGINT)
            _out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (130, b"")


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """Yield a port with a full backlog, where connections are neither accepted nor refused."""
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
    """Return the number of connections to `port` in state SYN_SENT."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


def imported(*words: str) -> set[str]:
    """Return the modules that orchctl has imported at its end, and the packages that they are in."""
    script = f"import sys; from orchctl.__main__ import main\ntry: main({words!r})\nfinally: print('\\n', *sys.modules)"
    given = environment(PYTHONWARNINGS="ignore")
    result = subprocess.run(
        [sys.executable, "-c", script], env=given, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    names = set(result.stdout.rpartition("\n ")[2].split())
    return names | {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_imports_neither_trio_nor_a_command(words: tuple[str, ...]) -> None:
    """It starts in a tenth of the time of a command, nearly all of which trio and pydantic take."""
    loaded = imported(*words)
    assert "orchctl.index" in loaded
    assert not loaded & {"trio", "pydantic", "ssl", "orchctl.client", "orchctl.parser", *DAEMONS_ONLY}
    assert not {name for name in loaded if name.startswith("orchctl.commands.")}


@pytest.mark.parametrize("words", [("status",), ("pools",), ("tasks",)])
def test_command_imports_only_what_it_needs(words: tuple[str, ...]) -> None:
    with serve({"GET /v2/meta/version": [reply(503)], "GET /v2/pools": [POOLS], "GET /v2/tasks": [TASKS]}) as queen:
        loaded = imported(*words, "--url", queen.url)
    assert {"trio", f"orchctl.commands.{words[0]}"} <= loaded
    assert not loaded & set(DAEMONS_ONLY)
    assert ("llama_orch.contracts.tasks" in loaded) == (words == ("tasks",))
    assert not loaded & {
        "llama_orch.engines",
        "llama_orch.settings.api",
        "llama_orch.settings.loading",
        "orchctl.chat",
        "orchctl.check",
        "orchctl.parser",
        "orchctl.submit",
    }


def test_exit_status_is_that_of_main() -> None:
    with serve({"GET /v2/pools": [reply(200, {"pools": [], "count": 0})]}) as queen:
        assert run_process("pools", "--url", queen.url).returncode == main(["pools", "--url", queen.url]) == 0
    assert run_process("pools", "--url", queen.url).returncode == main(["pools", "--url", queen.url]) == 69
