"""wake.py as the -handoff services run it."""

import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from socket import AF_UNIX, socket
from threading import Thread

import pytest

from llama_orch.contracts.service_reloads import RELOAD_PATH, ServiceReload
from llama_orch.service import wake as module

SCRIPT = module.__file__


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IS", SCRIPT, *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def read_by_peer(connection: socket) -> None:
    """Wait until the peer has read all sent bytes, so that it receives separate chunks."""
    deadline = time.monotonic() + 30
    while int.from_bytes(ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder):
        assert time.monotonic() < deadline, "nobody reads"
        time.sleep(0.001)


def missing_bytes(request: bytes) -> int:
    """Return how many bytes of `request` to wait for: one at a time before the end of its head."""
    head, end, body = request.partition(b"\r\n\r\n")
    return int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]) - len(body) if end else 1


@contextmanager
def daemon(path: Path, *answer: bytes) -> Iterator[list[bytes]]:
    """Accept one connection at `path` and send the chunks of `answer`; yield the request."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _peer = listener.accept()
        with connection:
            while (missing := missing_bytes(b"".join(asked))) > 0:
                asked.append(connection.recv(missing))
            for piece in answer:
                connection.sendall(piece)
                read_by_peer(connection)

    with socket(AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = Thread(target=serve)
        thread.start()
        yield asked
        thread.join(30)
        assert not thread.is_alive(), "the daemon was not asked"


def test_wake_requests_one_scan(tmp_path: Path) -> None:
    with daemon(tmp_path / "d.sock", b"HTTP/1.1 204 No Content\r\n\r\n") as asked:
        ended = run(str(tmp_path / "d.sock"))
    assert (ended.returncode, ended.stderr) == (0, "")
    head = b"".join(asked).decode().splitlines()
    assert head[0] == "POST /v2/handoff/scan HTTP/1.1"
    assert "Content-Length: 0" in head


def test_reload_passes_on_the_environment_of_the_unit(tmp_path: Path) -> None:
    """systemd has read it anew for this process, bytes that are not UTF-8 included."""
    arguments = [sys.executable, "-IS", SCRIPT, str(tmp_path / "d.sock"), RELOAD_PATH]
    with daemon(tmp_path / "d.sock", b"HTTP/1.1 200 OK\r\n\r\n") as asked:
        environ: dict[bytes, bytes] = {b"RUST_LOG": b"debug", b"ODD": b"\xff"}
        subprocess.run(arguments, env=environ, timeout=30, check=True)
    order = ServiceReload.model_validate_json(b"".join(asked).partition(b"\r\n\r\n")[2], strict=True)
    assert order.environment
    assert (order.environment["RUST_LOG"], order.environment["ODD"]) == ("debug", "?")


def test_wake_reads_only_the_status_line(tmp_path: Path) -> None:
    """The daemon keeps the connection open, since not all servers honour Connection: close."""
    path = tmp_path / "d.sock"
    with socket(AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = subprocess.Popen([sys.executable, "-IS", SCRIPT, str(path)])
        connection, _peer = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 204 No Content\r\n")
            assert process.wait(30) == 0


def test_wake_joins_answer_chunks(tmp_path: Path) -> None:
    with daemon(tmp_path / "d.sock", b"HTTP/1.1", b" 200 OK", b"\r\n\r\n"):
        assert run(str(tmp_path / "d.sock")).returncode == 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"x" * 300])
def test_wake_reports_refusal(tmp_path: Path, answer: bytes) -> None:
    with daemon(tmp_path / "d.sock", answer):
        ended = run(str(tmp_path / "d.sock"))
    assert ended.returncode == module.EX_PROTOCOL
    assert "refused to scan" in ended.stderr
    assert str(tmp_path / "d.sock") in ended.stderr


def test_wake_reports_missing_answer(tmp_path: Path) -> None:
    with daemon(tmp_path / "d.sock"):
        ended = run(str(tmp_path / "d.sock"))
    assert ended.returncode == module.EX_UNAVAILABLE
    assert "closed without an answer" in ended.stderr


def test_wake_reports_missing_socket(tmp_path: Path) -> None:
    ended = run(str(tmp_path / "none.sock"))
    assert ended.returncode == module.EX_UNAVAILABLE
    assert ended.stderr.count("\n") == 1, "one line, no traceback"
    assert "none.sock: No such file or directory" in ended.stderr


def test_wake_requests_another_path(tmp_path: Path) -> None:
    with daemon(tmp_path / "d.sock", b"HTTP/1.1 200 OK\r\n\r\n") as asked:
        assert run(str(tmp_path / "d.sock"), "/v2/pools/reload").returncode == 0
    assert b"".join(asked).startswith(b"POST /v2/pools/reload HTTP/1.1\r\n")


def test_wake_prints_every_problem_of_a_refusal(tmp_path: Path) -> None:
    body = b'{"message": "refused:\\n  a:1: x\\n  b:2: y"}'
    head = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body)
    with daemon(tmp_path / "d.sock", head, body[:20], body[20:]):
        ended = run(str(tmp_path / "d.sock"), RELOAD_PATH)
    assert ended.returncode == module.EX_PROTOCOL
    assert ended.stderr.endswith("refused POST /v2/reload: refused:\n  a:1: x\n  b:2: y\n")


def test_refused_pools_files_are_logged_by_the_daemon_alone(tmp_path: Path) -> None:
    body = b'{"message": "refused: a:1: x"}'
    with daemon(tmp_path / "d.sock", b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body), body):
        ended = run(str(tmp_path / "d.sock"), "/v2/pools/reload")
    assert (ended.returncode, ended.stderr) == (module.EX_PROTOCOL, "")


def test_wake_requires_one_or_two_arguments() -> None:
    assert run().returncode == module.EX_USAGE
    assert run("a", "b", "c").returncode == module.EX_USAGE


def test_wake_imports_only_the_standard_library() -> None:
    """With -IS and in another directory it cannot import the project."""
    loaded = subprocess.run(
        [sys.executable, "-IS", "-X", "importtime", SCRIPT, "a", "b", "c"], capture_output=True, text=True, check=False
    ).stderr
    assert "socket" in loaded
    assert "llama_orch" not in loaded
    assert "asyncio" not in loaded
