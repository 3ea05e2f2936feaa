"""No request blocks a daemon's event loop or uses much more memory than the size of its body; valid ones are served."""

import gzip
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from llama_orch.settings.api import BODY_LIMIT
from tests.connections import receive_some
from tests.integration.large_bodies import MIB, VALID, bomb, chunked, hostile, repeated
from tests.unit.queen_rbee.scripted_openai import CHAT, EMBEDDING, events

LIMIT_S = 60.0
GAP_MS = 250.0
"""CPU time of the daemon between two turns of its event loop. The target is 50 ms; slow CPUs need more."""
MAX_GROWTH_PER_BYTE = 10
BASE_GROWTH_KIB = 32 << 10
"""Memory growth that is allowed for a body of any size."""
VARIABLES = {"pool_id": "default", "path...": "v1/chat/completions", "task_id": "0" * 32, "node_id": "n"}
DAEMONS = ("queen-rbee", "pool-managerd")
GZIP = {"Content-Encoding": "gzip"}
RESUME_ROUTES = ("/v2/resume", "/v2/pools/{pool_id}/resume")


@dataclass(frozen=True)
class Measurement:
    """Measurements of one request. Status 0: the connection broke while the body was being sent."""

    name: str
    size: int
    status: int
    answered_s: float
    gap_ms: float
    grown_kib: int

    def __str__(self) -> str:
        return (
            f"{self.name[:74]:74} {self.size / MIB:6.1f} MiB: {self.status} after {self.answered_s:6.2f} s, "
            f"gap {self.gap_ms:7.1f} ms, {self.grown_kib / 1024:6.1f} MiB more"
        )


@dataclass
class Daemon:
    """A running daemon that measures itself; see measured_daemon.py."""

    port: int
    routes: list[tuple[str, str]]
    measured: list[Measurement] = field(default_factory=list)

    def fetch_measurements(self) -> dict[str, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        connection.request("GET", "/measured")
        found: dict[str, float] = json.loads(connection.getresponse().read())
        connection.close()
        return found

    def ask(
        self, method: str, path: str, name: str, body: bytes, headers: dict[str, str] | None = None, size: int = 0
    ) -> Measurement:
        """Send one request on a new connection and record its measurements.

        `size` is the size of the decoded body, if `body` is compressed.
        """
        self.fetch_measurements()  # resets them
        began = time.monotonic()
        status = self._status(method, path, body, headers or {})
        answered_s, found = time.monotonic() - began, self.fetch_measurements()
        measurement = Measurement(
            f"{method} {path}, {name}", size or len(body), status, answered_s, found["gap_ms"], int(found["grown_kib"])
        )
        self.measured.append(measurement)
        return measurement

    def _status(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        fields = {"Content-Length": str(len(body))} if "Transfer-Encoding" not in headers else {}
        try:
            connection.putrequest(method, path)
            for field_name, value in {**fields, **headers, "Content-Type": "application/json"}.items():
                connection.putheader(field_name, value)
            connection.endheaders()
            with suppress(BrokenPipeError, ConnectionResetError):  # it responded before it read the body
                connection.send(body)
            response = connection.getresponse()
            response.read()
            return response.status
        except (ConnectionError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


def path_of(route: str) -> str:
    return re.sub(r"\{([^}]+)\}", lambda found: VARIABLES.get(found[1], "x"), route)


@contextmanager
def daemon(name: str, engine_url: str) -> Iterator[Daemon]:
    command = [sys.executable, "-m", "tests.integration.measured_daemon", name, engine_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            startup = json.loads(process.stdout.readline())
            yield Daemon(startup["port"], [(method, path) for method, path in startup["routes"]])
        finally:
            process.kill()


async def engine(stream: trio.SocketStream) -> None:
    """Read one request of any length and respond with a valid result."""
    with suppress(trio.BrokenResourceError):
        request = bytearray()
        while b"\r\n\r\n" not in request:
            request += await receive_some(stream)
        head, _, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        left = int(length[1]) - len(body) if length else 0
        while left > 0:
            left -= len(await receive_some(stream))
        answer = json.dumps(EMBEDDING).encode() if b"/v1/embeddings" in head else events(CHAT)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


@asynccontextmanager
async def running_daemon(name: str) -> AsyncIterator[Daemon]:
    """Run the daemon `name` with an engine that is served in this process."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, engine, 0, host="127.0.0.1"))
        with daemon(name, f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}") as target:
            yield target
        nursery.cancel_scope.cancel()


FULLY_TESTED_ROUTES = {"/v2/tasks", "/v1/chat/completions", "/v1/messages", "/v2/pools/{pool_id}/engine/{path...}"}
"""Routes that get every hostile body: each parses its body with code of its own."""
PARSING_ROUTES = {
    *("/v1/completions", "/v1/embeddings", "/v1/rerank", "/v2/nodes/register", "/v2/nodes/{node_id}/heartbeat"),
    *("/v2/artifacts", "/v2/sessions/{session_id}"),
}
"""Routes that get the WORST: their models or limits are their own, but not how they are parsed."""
SLOW_CHUNK_ROUTES = {"/v2/artifacts", "/v2/pools/{pool_id}/drain"}
"""One route of each daemon that Quart serves: hypercorn decodes its chunks, h11 those of the routes above."""
WORST = ("messages: empty objects", "unknown members", "a list", "deep objects", "escapes")
BAD = "unknown members"
"""What every other route gets, with a gzip bomb: enough to notice that it reads bodies in another way."""


def send_hostile_bodies(target: Daemon) -> None:
    """Send hostile bodies to each route that accepts a body."""
    bodies, packed, numbers = list(hostile()), bomb(), gzip.compress(repeated(b"1"))
    measured = list[Measurement]()
    assert {BAD, *WORST} < {name for name, _body in bodies}
    for method, route in target.routes:
        path = path_of(route)
        target.ask(method, path, "first request", b"{}")
        for resume in RESUME_ROUTES:
            if ("POST", resume) in target.routes:
                target.ask("POST", path_of(resume), "resume", b"")
        target.measured.clear()  # the first request to a route imports modules and is slower
        for name, body in bodies:
            if route in FULLY_TESTED_ROUTES or name == BAD or (route in PARSING_ROUTES and name in WORST):
                target.ask(method, path, name, body)
        target.ask(method, path, "a gzip bomb of 1 GiB", packed, GZIP, size=BODY_LIMIT)
        if route in FULLY_TESTED_ROUTES | PARSING_ROUTES:
            target.ask(method, path, "gzip of numbers", numbers, GZIP)
        if route in FULLY_TESTED_ROUTES | SLOW_CHUNK_ROUTES:
            small = chunked(repeated(b"1", 2 * MIB))
            target.ask(method, path, "chunks of two bytes", small, {"Transfer-Encoding": "chunked"})
        measured += target.measured
    target.measured = measured


def report(measured: list[Measurement]) -> None:
    worst = sorted(measured, key=lambda one: one.gap_ms)[-10:]
    print(*worst, f"longest gap: {worst[-1].gap_ms:.1f} ms in {len(measured)} requests", sep="\n")


def assert_unobtrusive(measured: list[Measurement]) -> None:
    """Check that no request blocked the loop or needed much more memory than its body has."""
    assert [one for one in measured if one.gap_ms > GAP_MS] == []
    assert [
        one for one in measured if one.grown_kib * 1024 > MAX_GROWTH_PER_BYTE * one.size + BASE_GROWTH_KIB * 1024
    ] == []


@pytest.mark.parametrize("name", DAEMONS)
async def test_worst_bodies_do_not_block_event_loop(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with running_daemon(name) as target:
        assert target.routes
        await trio.to_thread.run_sync(send_hostile_bodies, target)
    with capsys.disabled():
        print()
        report(target.measured)
    assert_unobtrusive(target.measured)
    assert [one for one in target.measured if one.status >= 500] == []


async def test_large_requests_are_served_without_blocking_others(capsys: pytest.CaptureFixture[str]) -> None:
    async with running_daemon("queen-rbee") as target:
        for path in {path for path, _make in VALID.values()}:
            warm_up = await trio.to_thread.run_sync(target.ask, "POST", path, "small", b"{}")
            assert warm_up.status == 400
        target.measured.clear()
        for case, (path, make) in VALID.items():
            await trio.to_thread.run_sync(target.ask, "POST", path, case, json.dumps(make()).encode())
    with capsys.disabled():
        print()
        report(target.measured)
    assert [one for one in target.measured if one.status not in (200, 202)] == []
    assert_unobtrusive(target.measured)
