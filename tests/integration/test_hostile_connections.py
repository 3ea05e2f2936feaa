"""No connection can stop a listener: every listener of the real daemons, and those that have TLS also with it.

The tests send a corpus of known attacks, with each way to end a connection, then random requests. After each case the
listener must answer another client. At the end every listener must answer, and both daemons must still be the processes
that were started.
"""

import itertools
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.certificates import create_ca
from tests.integration.two_daemons import Listener, TwoDaemons, read_all, status_of, two_daemons

TOKEN = "0123456789abcdef-of-the-fleet"
HOST = b"Host: localhost\r\n"
PROBE = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
RESET = struct.pack("ii", 1, 0)
REPEATS = 4
"""Repetitions, per ending, of an attack whose effect depends on a race: the request is in progress when the connection
ends. CONNECT needed 2 to 11 connections to close a listener. Requests that are refused at once are sent once."""


def head(method: bytes, target: bytes = b"/v2/tasks", version: bytes = b"HTTP/1.1", fields: bytes = b"") -> bytes:
    return method + b" " + target + b" " + version + b"\r\n" + HOST + fields + b"\r\n"


CLOSE = b"Connection: close\r\n"
NO_BODY = b"Content-Length: 0\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
REFUSED: dict[str, tuple[bytes, int]] = {
    "connect": (head(b"CONNECT", fields=NO_BODY + CLOSE), 501),
    "connect kept": (head(b"CONNECT"), 501),
    "connect to an authority": (head(b"CONNECT", b"evil.example:443"), 501),
    "unknown method": (head(b"BREW", fields=CLOSE), 501),
    "method in lower case": (head(b"get", b"/health", fields=CLOSE), 501),
    "http 2 preface": (b"PRI * HTTP/2.0\r\n\r\n", 505),
    "websocket": (head(b"GET", b"/v1/models", fields=WEBSOCKET), 400),
    "websocket elsewhere": (head(b"GET", b"/no-such-path", fields=WEBSOCKET), 400),
    "bad chunk on a hot path": (head(b"POST", b"/v2/tasks", fields=CHUNKED) + b"zz\r\nhello\r\n0\r\n\r\n", 400),
    "length and chunked": (head(b"POST", fields=NO_BODY + CHUNKED) + b"0\r\n\r\n", 400),
    "chunked in 1.0": (head(b"POST", version=b"HTTP/1.0", fields=CHUNKED) + b"0\r\n\r\n", 400),
    "two lengths": (head(b"POST", fields=b"Content-Length: 1\r\nContent-Length: 2\r\n") + b"x", 400),
    "two authorizations": (head(b"GET", fields=b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400),
    "two hosts": (head(b"GET", fields=b"Host: other\r\n"), 400),
    "empty host": (b"GET /health HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "not a path": (head(b"GET", b"health"), 400),
    "a long target": (head(b"GET", b"/" + b"x" * 10_000), 414),
    "a long header": (head(b"GET", b"/health", fields=b"X-Long: " + b"x" * 40_000 + b"\r\n"), 431),
    "many headers": (head(b"GET", b"/health", fields=b"X-One: 1\r\n" * 200), 431),
    "no version": (b"GET /\r\n\r\n", 400),
    "binary": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    **{
        f"http {version}": (head(b"GET", b"/health", f"HTTP/{version}".encode()), 505)
        for version in ("0.9", "1.2", "2.0", "3.0", "9.9")
    },
}
UNFINISHED = {
    "nothing": b"",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9,
    "half a head": b"POST /v2/tasks HTTP/1.1\r\nHost: loc",
    "half a body": head(b"POST", fields=b"Content-Length: 1000\r\n") + b"{",
    "half a chunk": head(b"POST", fields=CHUNKED) + b"5\r\nhe",
    "half a body elsewhere": head(b"PUT", b"/no-such-path", fields=b"Content-Length: 1000\r\n") + b"{",
    "expect": head(b"POST", fields=b"Content-Length: 10\r\nExpect: 100-continue\r\n"),
    "pipelined": head(b"GET", b"/health") * 20,
    "pipelined behind connect": head(b"CONNECT", fields=NO_BODY) + head(b"GET", b"/health") * 5,
    "pipelined mixture": head(b"GET", b"/v2/tasks") + head(b"GET", b"/no-such-path") + head(b"TRACE") + b"\x00\r\n\r\n",
    "upgrade to h2c": head(b"GET", b"/health", fields=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    "stream left": head(b"GET", b"/v2/tasks/x/events"),
}
ENDINGS = ("read", "half close", "close", "reset")


@pytest.fixture(scope="module", params=["plain", "TLS and token"])
def daemons(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoDaemons]:
    directory = tmp_path_factory.mktemp("daemons")
    more = {}
    if request.param != "plain":
        files = create_ca(tmp_path_factory.mktemp("ca"), "ca").issue("machine")
        more = {
            "LLORCH_TLS_CERT_FILE": str(files.cert),
            "LLORCH_TLS_KEY_FILE": str(files.key),
            "LLORCH_API_TOKEN": TOKEN,
        }
    with two_daemons(directory, **more) as running:
        started = running.pids()
        yield running
        assert {listener.name for listener in running.listeners if not answers_probe(listener)} == set()
        assert running.pids() == started
        assert "Traceback" not in running.logs()


def attacked(daemons: TwoDaemons) -> list[Listener]:
    """Return the listeners to attack: with TLS only those that have it, because the others are the same as without."""
    secured = [listener for listener in daemons.listeners if listener.tls]
    return secured or list(daemons.listeners)


def attack(listener: Listener, sent: bytes, ending: str) -> bytes:
    """Send one case over a new connection and end it. Return the response if `ending` waits for one."""
    with listener.connect() as connection:
        try:
            connection.sendall(sent)
            if ending == "half close":
                connection.shutdown(socket.SHUT_WR)
            if ending in ("read", "half close"):
                return read_all(connection)
            if ending == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        except ConnectionError:  # refused before everything was sent
            return b""
    return b""


def answers_probe(listener: Listener) -> bool:
    authorization = f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    return listener.status(PROBE.removesuffix(b"\r\n") + authorization) == 200


@pytest.mark.parametrize("case", REFUSED)
def test_refused_request_gets_status_and_listener_survives(daemons: TwoDaemons, case: str) -> None:
    sent, status = REFUSED[case]
    for listener in attacked(daemons):
        if "hot path" in case and listener.name != "queen-rbee api":
            continue
        answer = attack(listener, sent, "read")
        needs_token = daemons.environ.get("LLORCH_API_TOKEN") and listener.name.endswith("api")
        assert status_of(answer) == (401 if needs_token and "hot path" in case else status), listener.name
        for ending, _ in itertools.product(ENDINGS[1:], range(REPEATS if "connect" in case else 1)):
            attack(listener, sent, ending)
        assert answers_probe(listener), listener.name


@pytest.mark.parametrize("case", UNFINISHED)
def test_client_may_disconnect_at_any_point(daemons: TwoDaemons, case: str) -> None:
    for listener in attacked(daemons):
        for ending, _ in itertools.product(ENDINGS[1:], range(REPEATS)):
            attack(listener, UNFINISHED[case], ending)
        assert answers_probe(listener), listener.name


METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"TRACE", b"CONNECT", b"PRI"])
TARGETS = st.sampled_from(
    [b"/", b"*", b"//", b"/health", b"//v1/models", b"/v2/tasks", b"/v2/tasks/x/events", b"/v1/chat/completions",
     b"/v1/messages", b"/v2/pools/x/engine/v1/models", b"http://localhost/v2/pools", b"x:1", b"/%2e%2e/%00"]
)  # fmt: skip
FIELDS = st.lists(
    st.sampled_from(
        [b"Connection: close", b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue",
         b"Content-Length: 0", b"Content-Length: 3", b"Content-Length: -1", b"Transfer-Encoding: chunked",
         b"Transfer-Encoding: gzip", b"Origin: http://evil.example", b"Host: evil.example", b"Host: localhost",
         b"Authorization: Bearer x", b"Content-Type: application/json", b"X: \xff", b": x", b"Trailer: x"]
    ),
    max_size=5,
)  # fmt: skip
BODIES = st.sampled_from([b"", b"{}", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"zz\r\n", b"\x00\xff" * 50]) | st.binary(
    max_size=64
)
RANDOM_REQUESTS = st.builds(
    lambda method, target, version, fields, body: b"\r\n".join(
        [method + b" " + target + b" HTTP/" + version, *fields, b"", body]
    ),
    METHODS,
    TARGETS,
    st.sampled_from([b"1.1", b"1.1", b"1.0", b"0.9", b"2.0"]),
    FIELDS,
    BODIES,
)
EXAMPLES = 60


def test_random_requests_leave_every_listener_answering(daemons: TwoDaemons) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(RANDOM_REQUESTS | st.binary(max_size=64), min_size=1, max_size=4), st.sampled_from(ENDINGS[1:]))
    def drive(requests: list[bytes], ending: str) -> None:
        for listener in attacked(daemons):
            attack(listener, b"".join(requests), ending)
            assert answers_probe(listener), listener.name

    drive()
