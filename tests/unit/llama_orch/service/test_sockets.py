"""Listening sockets: inherited from systemd, or bound by the daemon."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from llama_orch.addresses import Host
from llama_orch.service import drop_ins, listeners
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.notify import Notifier
from llama_orch.service.run import Service
from llama_orch.service.sockets import bind, disagreement, inherited_fds
from llama_orch.service.watchdog import Watchdog
from llama_orch.settings.types import Secret

LOOPBACK = Host("127.0.0.1", 0)
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # not in the socket module of Python 3.11


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close the sockets of a test."""
    with ExitStack() as stack:
        yield stack


def service(environ: dict[str, str] | None = None) -> Service:
    notifier = Notifier({})
    return Service("queen-rbee", notifier, Watchdog(notifier), trio.Event(), environ or {})


def inherit(names: str, count: int, pid: int) -> str:
    """Return what a separate process sees that inherits `count` sockets as descriptors 3 and up."""
    code = (
        "import os, socket\n"
        "from llama_orch.service.sockets import inherited_fds\n"
        f"made = [socket.socket() for _ in range({count})]\n"
        f"print(inherited_fds({{'LISTEN_PID': str(os.getpid() + {pid}), 'LISTEN_FDS': '{count}',"
        f"  'LISTEN_FDNAMES': '{names}'}}, os.getpid()), [os.get_inheritable(s.fileno()) for s in made])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path())
    return ended.stdout.strip()


def path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_inherited_descriptors_are_named_and_cloexec() -> None:
    assert inherit("api:metrics:api", 3, 0) == "{'api': [3, 5], 'metrics': [4]} [False, False, False]"


def test_descriptors_without_a_name_are_unknown() -> None:
    assert inherit("api", 2, 0) == "{'api': [3], 'unknown': [4]} [False, False]"


def test_descriptors_of_other_process_are_ignored() -> None:
    assert inherit("api", 1, 1).startswith("{}")


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "3"}, {"LISTEN_PID": "7"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}]
)
def test_incomplete_variables_pass_nothing(environ: dict[str, str]) -> None:
    assert inherited_fds(environ, 7) == {}


def test_bound_socket_listens(opened: ExitStack) -> None:
    (sock,) = bind(LOOPBACK, "HTTP API", "VARIABLE")
    opened.enter_context(sock)
    opened.enter_context(socket.create_connection(sock.getsockname()))


def refused(host: Host) -> StartupError:
    with pytest.raises(StartupError) as caught:
        bind(host, "HTTP API", "ORCHESTRATORD_BIND_ADDR")
    assert caught.value.status is ExitStatus.UNAVAILABLE
    assert "ORCHESTRATORD_BIND_ADDR" in caught.value.hint
    assert "HTTP API" in caught.value.message
    return caught.value


def test_port_in_use_is_named_with_command(opened: ExitStack) -> None:
    (holder,) = bind(LOOPBACK, "x", "y")
    opened.enter_context(holder)
    port = holder.getsockname()[1]
    error = refused(Host("127.0.0.1", port))
    assert f"127.0.0.1:{port} is already in use" in error.message
    assert f"ss -ltnp 'sport = :{port}'" in error.hint
    assert "another port" in error.hint


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid", "a..b", "x" * 70])
def test_unavailable_address_is_explained(host: str) -> None:
    assert host in refused(Host(host, 0)).message


def test_failed_bind_leaves_no_socket() -> None:
    before = os.listdir("/proc/self/fd")
    refused(Host("203.0.113.7", 0))
    assert os.listdir("/proc/self/fd") == before


def test_sockets_that_listen_elsewhere_disagree(opened: ExitStack) -> None:
    (sock,) = bind(LOOPBACK, "x", "y")
    opened.enter_context(sock)
    port = sock.getsockname()[1]
    assert disagreement([sock], Host("127.0.0.1", port)) == []
    for wanted in (Host("127.0.0.1", port ^ 1), Host("0.0.0.0", port), Host("a..b", port)):
        assert disagreement([sock], wanted) == [Host("127.0.0.1", port)]


@pytest.fixture
def inherited(opened: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> socket.socket:
    """A socket inherited as `api` and as `metrics`; unit files are searched below `tmp_path`."""
    (sock,) = bind(LOOPBACK, "x", "y")
    opened.enter_context(sock)
    monkeypatch.setattr(listeners, "inherited_fds", lambda *_: {name: [sock.fileno()] for name in ("api", "metrics")})
    monkeypatch.setattr(drop_ins, "ROOTS", (tmp_path,))
    return sock


ELSEWHERE = Host("127.0.0.1", 1)
RESTART = "systemctl daemon-reload && systemctl restart queen-rbee.socket queen-rbee.service"


def effective_address(name: str = "api", address: Host = ELSEWHERE) -> Host:
    return listeners.effective_address(service(), name, address, "ORCHESTRATORD_BIND_ADDR")


def test_inherited_socket_is_used_wherever_it_listens(inherited: socket.socket, opened: ExitStack) -> None:
    (used,) = listeners.tcp(service(), "metrics", ELSEWHERE, "metrics", "PROMETHEUS_METRICS_PORT")
    assert used.getsockname() == inherited.getsockname()
    used.detach()


def test_address_of_inherited_socket_is_effective(inherited: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    real = Host(*inherited.getsockname())
    assert effective_address() == effective_address("metrics") == real
    assert inherited.getsockname()[1] == real.port, "it is still open"
    assert f"listens on {real}, not on 127.0.0.1:1 as set by ORCHESTRATORD_BIND_ADDR" in caplog.text


def test_agreeing_socket_is_not_logged(inherited: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    real = Host(*inherited.getsockname())
    assert effective_address(address=real) == real
    assert effective_address("other") == ELSEWHERE, "it is not inherited"
    assert caplog.text == ""


def test_advice_without_drop_ins_is_the_command(inherited: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    effective_address()
    assert f"To move the socket: {RESTART}" in caplog.text
    effective_address("metrics")
    assert "systemctl restart queen-rbee-metrics.socket queen-rbee.service" in caplog.text


@pytest.mark.parametrize(
    ("path", "text", "advice"),
    [
        (
            "queen-rbee.service.d/override.conf",
            "[Service]\nEnvironment=ORCHESTRATORD_BIND_ADDR=127.0.0.1:1\n",
            "sets ORCHESTRATORD_BIND_ADDR, which does not move the socket: "
            "set it in /etc/llama-orch/queen-rbee.env instead",
        ),
        (
            "queen-rbee.service.d/site.conf",
            "[Service]\nEnvironment=ORCHESTRATORD_CLOUD_PROFILE=true\n",
            "sets ORCHESTRATORD_CLOUD_PROFILE, which does not move the socket: "
            "set ORCHESTRATORD_BIND_ADDR in /etc/llama-orch/queen-rbee.env instead",
        ),
        (
            "queen-rbee.service.d/site.conf",
            "[Service]\nEnvironmentFile=/etc/site.env\n",
            "sets EnvironmentFile, which does not move the socket: "
            "set ORCHESTRATORD_BIND_ADDR in /etc/llama-orch/queen-rbee.env instead",
        ),
        ("queen-rbee.socket.d/a.conf", "[Socket]\nListenStream=\nListenStream=8098\n", "sets ListenStream=: remove"),
        ("queen-rbee.socket", "[Socket]\nListenStream=8098\n", "sets ListenStream=: remove"),
    ],
)
def test_advice_names_the_file_that_is_in_the_way(
    inherited: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, text: str, advice: str
) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(text)
    effective_address()
    assert f"{tmp_path / path} {advice}" in caplog.text
    assert f"then: {RESTART}" in caplog.text


def test_advice_for_metrics_names_the_port(
    inherited: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "queen-rbee-metrics.socket").write_text("ListenStream=9999\n")
    listeners.effective_address(service(), "metrics", ELSEWHERE, "PROMETHEUS_METRICS_PORT")
    assert f"PROMETHEUS_METRICS_PORT in /etc/llama-orch/queen-rbee.env to {inherited.getsockname()[1]};" in caplog.text


def test_unix_socket_instead_of_port_is_accepted(
    opened: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sock = opened.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(str(tmp_path / "api.sock"))
    monkeypatch.setattr(listeners, "inherited_fds", lambda *_: {"api": [sock.fileno()]})
    assert effective_address() == ELSEWHERE
    assert caplog.text == ""


def test_commented_lines_and_other_units_set_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop_ins, "ROOTS", (tmp_path / "none", tmp_path))
    (tmp_path / "a.socket.d").mkdir()
    (tmp_path / "a.socket.d/x.conf").write_text("#ListenStream=1\n; ListenStream=2\nXListenStream=3\n")
    (tmp_path / "a.socket.d/unreadable.conf").mkdir()
    assert drop_ins.setting("a.socket", "ListenStream") is None
    (tmp_path / "b.socket").write_text("ListenStream=1\n")
    assert drop_ins.setting("a.socket", "ListenStream") is None
    assert drop_ins.setting("b.socket", "ListenStream") == tmp_path / "b.socket"


@pytest.mark.parametrize(("host", "family"), [("203.0.113.7", socket.AF_INET), ("2001:db8::7", socket.AF_INET6)])
def test_address_without_interface_is_logged(
    opened: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    host: str,
    family: socket.AddressFamily,
) -> None:
    sock = opened.enter_context(socket.socket(family))
    level, option = (socket.SOL_IP, IP_FREEBIND) if family == socket.AF_INET else (socket.IPPROTO_IPV6, IPV6_FREEBIND)
    sock.setsockopt(level, option, 1)  # as FreeBind=yes does
    sock.bind((host, 0))
    monkeypatch.setattr(listeners, "inherited_fds", lambda *_: {"api": [sock.fileno()]})
    address = Host(*sock.getsockname()[:2])
    assert effective_address(address=address) == address
    assert f"{address}: no interface has this address yet" in caplog.text


def test_local_socket_has_mode_0660(opened: ExitStack, tmp_path: Path) -> None:
    where = tmp_path / "made" / "queen.sock"
    before = os.umask(0)
    os.umask(before)
    (sock,) = listeners.local(service(), where)
    opened.enter_context(sock)
    assert stat.S_IMODE(where.stat().st_mode) == 0o660
    assert os.umask(before) == before, "the process's umask is as it was"


def test_stale_socket_is_replaced(opened: ExitStack, tmp_path: Path) -> None:
    where = tmp_path / "queen.sock"
    listeners.local(service(), where)[0].close()
    assert where.is_socket()
    (sock,) = listeners.local(service(), where)
    opened.enter_context(sock)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(where))


def local_refused(where: Path) -> StartupError:
    with pytest.raises(StartupError) as caught:
        listeners.local(service(), where)
    assert caught.value.status is ExitStatus.CANNOT_CREATE
    assert str(where) in caught.value.message
    return caught.value


def test_socket_in_use_is_not_replaced(opened: ExitStack, tmp_path: Path) -> None:
    where = tmp_path / "queen.sock"
    (sock,) = listeners.local(service(), where)
    opened.enter_context(sock)
    error = local_refused(where)
    assert "already in use" in error.message
    assert f"fuser -v {where}" in error.hint
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(where))


def test_regular_file_is_not_removed(tmp_path: Path) -> None:
    where = tmp_path / "queen.sock"
    where.write_text("somebody's notes")
    local_refused(where)
    assert where.read_text() == "somebody's notes"


def test_too_long_socket_path_is_explained(tmp_path: Path) -> None:
    assert "too long" in local_refused(tmp_path / ("x" * 120)).message


def test_missing_directory_is_named_in_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"ls -ld {tmp_path / 'file'}" in local_refused(tmp_path / "file" / "queen.sock").hint


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("192.0.2.1", True), ("127.0.0.1", False)])
def test_open_address_without_token_is_logged(host: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    listeners.log_access(Host(host, 1), None)
    assert ("without a token" in caplog.text) is warned


def test_required_token_is_logged_as_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    listeners.log_access(Host("0.0.0.0", 1), Secret("0123456789abcdef"))
    assert "token_fp6=9f9f51" in caplog.text
    assert "0123456789abcdef" not in caplog.text


def test_both_tokens_are_logged_as_fingerprints(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first, second = Secret("0123456789abcdef"), Secret("fedcba9876543210")
    listeners.log_access(Host("0.0.0.0", 1), first, second)
    [record] = caplog.records
    assert all(f"token_fp6={token.fingerprint}" in record.getMessage() for token in (first, second))
    assert not any(token.get_secret_value() in caplog.text for token in (first, second))
