"""The relay with faulty engines and clients: malformed answers, broken connections, clients that leave at any time.

Each time the client gets no answer that falsely looks complete, nothing is logged, and no lease or connection is left.
"""

import os
import random
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from llama_orch.http.tls.secured import RESET
from tests.unit.pool_managerd import odd_engine
from tests.unit.pool_managerd.odd_engine import STREAM, WHOLE, chunk
from tests.unit.pool_managerd.relay_site import LIMIT_S, TOKEN, RelaySite, relay_site

HEALTH = "GET /health HTTP/1.1\nHost: localhost\n\n"
"""If sent before another request, the connection is served by hypercorn."""
END = chunk(b"")


def head(fields: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode("latin-1")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def leak_check(caplog: pytest.LogCaptureFixture) -> AsyncIterator[RelaySite]:
    """Run a relay; at the end check that no lease, log message or connection is left but idle ones."""
    async with relay_site() as site:
        files = open_files()

        def leases() -> int:
            return site.registry.pools[0].active_leases

        yield site
        with trio.fail_after(LIMIT_S):
            while leases() or site.engine.open or open_files() > files + site.connections.idle:  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert caplog.messages == []


async def read_all(stream: trio.SocketStream) -> bytes:
    """Read up to the end of the connection."""
    received = b""
    try:
        async for data in stream:
            received += data
    except trio.BrokenResourceError:
        pass
    return received


def is_whole(answer: bytes) -> bool:
    """Whether `answer` looks complete to a client."""
    top, gap, body = answer.partition(b"\r\n\r\n")
    if not gap:
        return False
    length = re.search(rb"content-length: (\d+)", top)
    return len(body) == int(length[1]) if length else body.endswith(END)


ODD_ANSWERS: dict[str, tuple[bytes, int, bytes]] = {
    "trailers": (STREAM + chunk(b"x") + b"0\r\nX-T: 1\r\n\r\n", 200, b"1\r\nx\r\n0\r\n\r\n"),
    "an extension of a chunk": (STREAM + b"1;a=b\r\nx\r\n" + END, 200, b"1\r\nx\r\n0\r\n\r\n"),
    "a 204 with a length": (head("Content-Length: 5", "204 No Content") + b"hello", 204, b""),
    "a 204 in chunks": (head("Transfer-Encoding: chunked", "204 No Content") + END, 204, b""),
    "a 304 with a length": (head("Content-Length: 5", "304 Not Modified"), 304, b""),
    "a 304 in chunks": (head("Transfer-Encoding: chunked", "304 Not Modified"), 304, b""),
    "early hints": (head("Link: x", "103 Early Hints") * 3 + WHOLE, 418, b"hello"),
    "another protocol": (head("Upgrade: x\r\nConnection: upgrade", "101 Switching Protocols"), 502, b""),
    "a length besides chunks": (head("Content-Length: 9\r\nTransfer-Encoding: chunked") + END, 200, END),
    "another coding": (head("Transfer-Encoding: gzip, chunked") + END, 502, b""),
    "two lengths": (head("Content-Length: 3\r\nContent-Length: 4") + b"abc", 502, b""),
    "more than its length": (WHOLE + WHOLE, 418, b"hello"),
    "a length of the connection": (head("Connection: content-length\r\nContent-Length: 0"), 200, END),
    "a number for a status": (head("Content-Length: 0", "999 X"), 999, b""),
    "no number for a status": (head("Content-Length: 0", "000 X"), 502, b""),
    "a head without an end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, 502, b""),
}


# every answer once with and once without a body, on either server; the other combinations only for three framings
CASES = [(name, "POST", "") for name in ODD_ANSWERS] + [(name, "HEAD", HEALTH) for name in ODD_ANSWERS]
for framing in ("trailers", "a length besides chunks", "more than its length"):
    CASES += [(framing, "GET", ""), (framing, "HEAD", ""), (framing, "POST", HEALTH), (framing, "GET", HEALTH)]


@pytest.mark.parametrize(
    ("name", "method", "server"), CASES, ids=[f"{name}-{method}-{bool(server)}" for name, method, server in CASES]
)
async def test_odd_answer_passes_or_is_502(
    name: str, method: str, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer, status, body = ODD_ANSWERS[name]
    monkeypatch.setitem(odd_engine.ANSWERS, "odd", answer)
    async with leak_check(caplog) as site:
        last = site.get("hello").replace("Host", "Connection: close\nHost")
        async with await site.raw(server + site.get("odd").replace("GET", method) + last) as stream:
            with trio.fail_after(LIMIT_S):
                received = await read_all(stream)
    answers = re.split(rb"(?=HTTP/1.1 \d)", received)[1:]
    assert [int(each.split(b" ")[1]) for each in answers[-2:]] == [status, 418]
    assert answers[-1].endswith(b"hello")
    got = answers[-2].partition(b"\r\n\r\n")[2]
    if method == "HEAD":
        assert got == b""
    elif status == 502:
        assert b"WORKER_RESET" in got
    else:
        assert got == body


@pytest.mark.parametrize("server", ["", HEALTH], ids=["hot", "hypercorn"])
@pytest.mark.parametrize("answer", [WHOLE, STREAM + chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + END])
async def test_cut_off_answer_does_not_look_complete(
    answer: bytes, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with leak_check(caplog) as site:
        for length in range(len(answer), -1, -3):
            monkeypatch.setitem(odd_engine.ANSWERS, "odd", answer[:length])
            async with await site.raw(server + site.get("odd").replace("Host", "Connection: close\nHost")) as stream:
                received = re.split(rb"(?=HTTP/1.1 \d)", await read_all(stream))[-1]
            status = b"502" if length < answer.index(b"\r\n\r\n") + 4 else answer.split(b" ")[1]
            good = length == len(answer) or status == b"502"
            assert is_whole(received) == good
            assert not good or received.split(b" ")[1] == status


@pytest.mark.parametrize("server", ["", HEALTH], ids=["hot", "hypercorn"])
@pytest.mark.parametrize(
    ("path", "token", "status"),
    [("hello", "another", b"401"), ("../hello", TOKEN, b"404"), ("hangup", TOKEN, b"502")],
)
async def test_refusal_of_head_request_has_no_body(
    path: str, token: str, status: bytes, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR")
    async with leak_check(caplog) as site:
        asked = f"HEAD /v2/pools/default/engine/{path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {token}\n\n"
        async with await site.raw(
            server + asked + site.get("hello").replace("Host", "Connection: close\nHost")
        ) as stream:
            answers = re.split(rb"(?=HTTP/1.1 \d)", await read_all(stream))[-2:]
    assert [each.split(b" ")[1] for each in answers] == [status, b"418"]
    assert answers[0].endswith(b"\r\n\r\n")


# each pair of values of these four parameters occurs in one case at least
DEPARTURES = [
    (path, behind, ("", HEALTH)[(row + column) % 2], ("close", "reset", "half a close")[(row + column) % 3])
    for row, path in enumerate(("silence", "stall", "flood", "hello"))
    for column, behind in enumerate((0, 1, 40))
]


@pytest.mark.parametrize(
    ("path", "behind", "server", "how"),
    DEPARTURES,
    ids=[f"{path}-{behind}-{how}" for path, behind, _, how in DEPARTURES],
)
async def test_leaving_client_is_noticed_despite_pipelining(
    path: str, behind: int, server: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`behind` pipelined requests of a kilobyte follow the one that is answered."""
    async with leak_check(caplog) as site:
        padded = site.get("silence").replace("Host", f"X: {'x' * 1000}\nHost")
        async with await site.raw(server + site.get(path) + padded * behind) as client:
            await site.engine.arrived.wait()
            if how == "reset":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif how == "half a close":
                await client.send_eof()
                with trio.fail_after(LIMIT_S):
                    await read_all(client)


async def test_client_that_leaves_between_requests_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    async with leak_check(caplog) as site, await site.raw(HEALTH) as client:
        assert (await client.receive_some()).startswith(b"HTTP/1.1 200")
        await trio.testing.wait_all_tasks_blocked(0.05)  # the server waits for another request now


def request_of(rng: random.Random) -> bytes:
    """Return a random request for the relay, perhaps cut off, perhaps repeated."""
    path = rng.choice(["hello", "silence", "stall", "flood", "cut", "short", "hangup", "nonsense", "empty", "old"])
    fields = rng.choice(["", "Expect: 100-continue\r\n", "Connection: close\r\n"])
    body = b"x" * rng.choice([0, 5, 1000, 20_000])
    if rng.random() < 0.5:
        sent = b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        sent = b"Transfer-Encoding: chunked\r\n\r\n" + (chunk(body) if body else b"") + b"0\r\nX-T: 1\r\n\r\n"
    top = (
        f"POST /v2/pools/default/engine/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{fields}"
    )
    sent_bytes = (top.encode() + sent) * rng.choice([1, 1, 2])
    sent_bytes = HEALTH.replace("\n", "\r\n").encode() + sent_bytes if rng.random() < 0.3 else sent_bytes
    return sent_bytes[: rng.randrange(len(sent_bytes))] if rng.random() < 0.5 else sent_bytes


async def visit(site: RelaySite, rng: random.Random) -> None:
    """Send a random request, read for a moment, then close or reset the connection."""
    client = await trio.open_tcp_stream("127.0.0.1", site.port)
    with trio.move_on_after(rng.choice([0.001, 0.01, 0.05, 0.2])):
        try:
            await client.send_all(request_of(rng))
            if rng.random() < 0.3:
                await client.send_eof()
            await read_all(client)
        except trio.BrokenResourceError:
            pass
    if rng.random() < 0.5:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    await trio.aclose_forcefully(client)


@pytest.mark.parametrize("seed", range(4))
async def test_many_clients_leave_nothing_behind(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    async with leak_check(caplog) as site, trio.open_nursery() as clients:
        for _client in range(30):
            clients.start_soon(visit, site, random.Random(rng.random()))
