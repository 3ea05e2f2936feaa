"""TLS on loopback with real certificates."""

import math
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry
from quart import Response
from quart import request as quart_request

from llama_orch.http.client.client import IdleConnections, Unreachable, UpstreamError, fetch, request
from llama_orch.http.server import handshakes, hot_exchange
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import Exchange, HotRoutes, Receive, Scope, Send
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.serving import serve
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from llama_orch.http.tls.tls import Tls
from llama_orch.settings.tls import TlsFiles
from llama_orch.telemetry.events.service import HANDSHAKE_FAILED
from tests.certificates import Authority, create_ca

LIMIT_S = 10
LARGE = bytes(range(256)) * (4 << 12)
"""More bytes than the socket buffers hold."""
HOT, COOL = "/hot/stream", "/cool/stream"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_ca(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate of another CA."""
    return create_ca(tmp_path_factory.mktemp("other"), "other").issue("stranger")


@pytest.fixture(scope="module")
def mutual(ca: Authority) -> TlsFiles:
    return ca.issue("daemon")


@pytest.fixture(scope="module")
def one_sided(mutual: TlsFiles) -> TlsFiles:
    return replace(mutual, ca=None)


@pytest.fixture(scope="module")
def trusting(mutual: TlsFiles) -> ssl.SSLContext:
    """The context of a client that trusts the CA and has no certificate."""
    return client(TlsFiles(ca=mutual.ca))


def client(files: TlsFiles) -> ssl.SSLContext:
    context = Tls.of(files).client
    assert context
    return context


@dataclass
class Site:
    """A running server and the outcomes of its requests."""

    url: str = ""
    address: tuple[str, int] = ("", 0)
    stop: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    streaming: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    may_end: trio.Event = field(default_factory=trio.Event)
    schemes: list[str] = field(default_factory=list)

    async def echo(self, exchange: Exchange) -> None:
        await exchange.send(200, await exchange.body())

    async def stream(self, exchange: Exchange) -> None:
        await exchange.body()
        await exchange.open_stream(200, ())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave, exchange, nursery.cancel_scope)
            await exchange.write(b"begun")
            self.streaming.set()
            await self.may_end.wait()
            await exchange.finish(b"ended")
            nursery.cancel_scope.cancel()

    async def _leave(self, exchange: Exchange, scope: trio.CancelScope) -> None:
        await exchange.gone()
        self.left.set()
        scope.cancel()

    async def flood(self, exchange: Exchange) -> None:
        await exchange.open_stream(200, ())
        self.streaming.set()
        while not self.ended.is_set():
            await exchange.write(LARGE)

    async def cut(self, exchange: Exchange) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.flood, exchange)
            await self.may_end.wait()
            exchange.abort()
            nursery.cancel_scope.cancel()
        self.left.set()

    async def cool_stream(self) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"begun"
                self.streaming.set()
                await self.may_end.wait()
                yield b"ended"
            finally:
                self.left.set()

        return Response(pieces())

    async def cool_echo(self) -> bytes:
        return await quart_request.get_data()  # type: ignore[return-value]


class Watched(Gate):
    """A gate that records the scheme of its requests."""

    site: Site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.site.schemes.append(scope["scheme"])
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def served(tls: CurrentTls, drain_s: float = math.inf) -> AsyncIterator[Site]:
    site, hot = Site(), HotRoutes()
    hot.add("POST", "/hot/echo", site.echo)
    hot.add("GET", HOT, site.stream)
    hot.add("GET", "/flood", site.flood)
    hot.add("GET", "/cut", site.cut)
    app = create_app("test", list, CollectorRegistry())
    app.config["MAX_CONTENT_LENGTH"] = 2 * len(LARGE)
    app.add_url_rule("/cool/echo", "echo", site.cool_echo, methods=["POST"])
    app.add_url_rule(COOL, "stream", site.cool_stream)
    gate = Watched(app, Access(), hot)
    gate.site = site

    async def run(sock: socket.socket, task_status: trio.TaskStatus[None]) -> None:
        await serve(gate, [sock], shutdown=site.stop, drain_s=drain_s, tls=tls, task_status=task_status)
        site.ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        site.address = listener.getsockname()
        site.url = f"{'https' if tls.server else 'http'}://127.0.0.1:{site.address[1]}"
        async with trio.open_nursery() as nursery:
            await nursery.start(run, listener.dup())
            yield site
            site.may_end.set()
            site.stop.set()
            with trio.fail_after(LIMIT_S):
                await site.ended.wait()


async def health(site: Site, tls: ssl.SSLContext | None) -> int:
    status, _body = await fetch(f"{site.url}/health", limit_s=LIMIT_S, tls=tls)
    return status


def handshake_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log lines on failed handshakes."""
    return [r.getMessage() for r in caplog.records if getattr(r, "event", None) is HANDSHAKE_FAILED]


async def test_hot_and_other_paths_share_a_connection(one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    ports = set()
    async with served(CurrentTls(one_sided)) as site, IdleConnections() as connections:
        site.may_end.set()
        for method, path, body in (
            ("POST", "/hot/echo", LARGE),
            ("GET", HOT, b""),
            ("POST", "/hot/echo", b"small"),
            ("POST", "/cool/echo", LARGE),
            ("GET", COOL, b""),
        ):
            asked = request(method, site.url + path, body=body, connections=connections, tls=trusting)
            async with asked as response:
                ports.add(response._stream.socket.getsockname()[1])  # type: ignore[attr-defined]
                assert await response.read(len(LARGE)) == (body or b"begunended"), path
        assert site.schemes == ["https"] * 5
    assert len(ports) == 1


async def test_plain_server_reports_http_scheme() -> None:
    async with served(NO_TLS) as site:
        assert await health(site, None) == 200
        assert site.schemes == ["http"]


async def test_concurrent_clients_get_their_own_answers(one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    async with served(CurrentTls(one_sided)) as site, IdleConnections() as connections:

        async def ask(number: int) -> None:
            body = b"%d" % number * 50_000
            for path in ("/hot/echo", "/cool/echo"):
                asked = request("POST", site.url + path, body=body, connections=connections, tls=trusting)
                async with asked as response:
                    assert await response.read() == body

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)


async def test_server_with_unknown_ca_is_refused(
    one_sided: TlsFiles, stranger: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(CurrentTls(one_sided)) as site:
        for context in (None, client(stranger)):
            with pytest.raises(Unreachable, match="its certificate was not accepted: unable to get local issuer"):
                await health(site, context)
        assert site.schemes == []


async def test_server_with_other_name_is_refused(ca: Authority, trusting: ssl.SSLContext) -> None:
    elsewhere = replace(ca.issue("elsewhere", "DNS:elsewhere.example,IP:192.0.2.1"), ca=None)
    async with served(CurrentTls(elsewhere)) as site:
        with pytest.raises(Unreachable, match=r"its certificate was not accepted: IP address mismatch.*127\.0\.0\.1"):
            await health(site, trusting)


async def test_mutual_tls_serves_only_clients_of_the_ca(
    mutual: TlsFiles, stranger: TlsFiles, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(CurrentTls(mutual)) as site:
        assert await health(site, client(mutual)) == 200
        for context in (trusting, client(replace(stranger, ca=mutual.ca))):
            with pytest.raises(UpstreamError):
                await health(site, context)
        assert site.schemes == ["https"]
        assert await health(site, client(mutual)) == 200
    assert handshake_log(caplog) == ["TLS handshake with 127.0.0.1 failed: the client sent no certificate"]


async def test_failed_handshake_is_logged_once_a_minute(
    mutual: TlsFiles, stranger: TlsFiles, caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    async with served(CurrentTls(mutual)) as site:
        for _ in range(3):
            with pytest.raises(UpstreamError):
                await health(site, client(replace(stranger, ca=mutual.ca)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(handshake_log(caplog)) == 1
        assert "its certificate was not accepted" in handshake_log(caplog)[0]
        mock_clock.jump(60)
        with pytest.raises(UpstreamError):
            await health(site, client(replace(stranger, ca=mutual.ca)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(handshake_log(caplog)) == 2


async def test_plain_http_to_tls_port_is_refused(
    one_sided: TlsFiles, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(CurrentTls(one_sided)) as site:
        with pytest.raises(UpstreamError):
            await fetch(site.url.replace("https", "http") + "/health", limit_s=LIMIT_S)
        assert site.schemes == []
        assert await health(site, trusting) == 200
    assert handshake_log(caplog) == ["TLS handshake with 127.0.0.1 failed: plain HTTP was sent to a TLS port"]


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01" + b"\xff" * 600, b"\x00" * 5000, b"\x16", b""])
async def test_noise_ends_only_its_connection(noise: bytes, one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    async with served(CurrentTls(one_sided)) as site:
        async with await trio.open_tcp_stream(*site.address) as stream:
            await stream.send_all(noise)
            await stream.send_eof()
            with trio.fail_after(LIMIT_S):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
        assert await health(site, trusting) == 200


async def test_tls_to_plain_http_server_fails(trusting: ssl.SSLContext) -> None:
    async with served(NO_TLS) as site:
        with pytest.raises(Unreachable, match="TLS handshake with 127"):
            await fetch(site.url.replace("http", "https"), limit_s=LIMIT_S, tls=trusting)
        assert await health(site, None) == 200


async def test_stalled_handshake_times_out(
    one_sided: TlsFiles,
    trusting: ssl.SSLContext,
    mock_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(CurrentTls(one_sided)) as site, await trio.open_tcp_stream(*site.address) as slow:
        await trio.testing.wait_all_tasks_blocked()
        assert await health(site, trusting) == 200
        mock_clock.jump(handshakes.LIMIT_S)
        assert await slow.receive_some() == b""
    assert handshake_log(caplog) == ["TLS handshake with 127.0.0.1 failed: the handshake timed out"]


async def test_stalled_handshake_does_not_delay_shutdown(
    one_sided: TlsFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handshakes, "LIMIT_S", math.inf)
    monkeypatch.setattr(handshakes, "NEWCOMER_S", 0.05)
    monkeypatch.setattr("llama_orch.http.server.serving.NEWCOMER_S", 0.05)
    async with served(CurrentTls(one_sided)) as site, await trio.open_tcp_stream(*site.address) as before:
        await trio.testing.wait_all_tasks_blocked()
        site.stop.set()
        with trio.fail_after(LIMIT_S):
            assert await before.receive_some() == b""
            await site.ended.wait()
    assert handshake_log(caplog) == []


async def test_stalled_server_handshake_times_out(trusting: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"within 0\.05 s"):
            async with request("GET", url, tls=trusting, connect_s=0.05):
                raise AssertionError("there is no connection")


@pytest.mark.parametrize("path", [HOT, COOL])
async def test_client_leaving_is_noticed(path: str, one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    async with served(CurrentTls(one_sided)) as site:
        async with request("GET", site.url + path, tls=trusting) as response:
            assert await anext(response.chunks()) == b"begun"
            await site.streaming.wait()
        with trio.fail_after(LIMIT_S):
            await site.left.wait()


async def test_handler_can_abort_stalled_client(one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    async with served(CurrentTls(one_sided)) as site, request("GET", site.url + "/cut", tls=trusting) as response:
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(LIMIT_S):
            site.may_end.set()
            await site.left.wait()
            with pytest.raises(UpstreamError):
                await response.read(1 << 30)


@pytest.mark.parametrize("path", [HOT, COOL])
async def test_shutdown_lets_stream_finish(path: str, one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    async with served(CurrentTls(one_sided)) as site, request("GET", site.url + path, tls=trusting) as response:
        chunks = response.chunks()
        assert await anext(chunks) == b"begun"
        site.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not site.ended.is_set()
        site.may_end.set()
        assert b"".join([chunk async for chunk in chunks]) == b"ended"
        with trio.fail_after(LIMIT_S):
            await site.ended.wait()


@pytest.mark.parametrize("path", [HOT, COOL, "/flood"])
async def test_shutdown_ends_endless_stream(path: str, one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    async with (
        served(CurrentTls(one_sided), drain_s=0.05) as site,
        request("GET", site.url + path, tls=trusting) as response,
    ):
        await site.streaming.wait()
        site.stop.set()
        with trio.fail_after(LIMIT_S):
            await site.ended.wait()
        with pytest.raises(UpstreamError):
            await response.read(math.inf)  # type: ignore[arg-type]


async def test_stalled_client_is_dropped(
    one_sided: TlsFiles, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_exchange, "SEND_LIMIT_S", 0.05)
    async with (
        served(CurrentTls(one_sided), drain_s=0.05) as site,
        request("GET", f"{site.url}/flood", tls=trusting) as response,
    ):
        with pytest.raises(UpstreamError):
            await read_slowly(response.chunks())


async def read_slowly(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        await trio.sleep(0.2)


async def test_connection_close_after_whole_answer(one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    """With `Connection: close` the client gets the whole answer and then EOF."""
    async with served(CurrentTls(one_sided)) as site:
        for path in ("/hot/echo", "/cool/echo"):
            async with request("POST", site.url + path, body=LARGE, tls=trusting) as response:
                assert await response.read(len(LARGE)) == LARGE
                with trio.fail_after(LIMIT_S):
                    assert await response._stream.receive_some() == b""


def test_old_tls_versions_are_refused(mutual: TlsFiles) -> None:
    tls = Tls.of(mutual)
    for context in (tls.server, tls.client):
        assert context
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_alpn_is_http_1_1(one_sided: TlsFiles, trusting: ssl.SSLContext) -> None:
    greedy = ssl.create_default_context(cafile=trusting_client(one_sided))
    greedy.set_alpn_protocols(["h2", "http/1.1"])
    async with served(CurrentTls(one_sided)) as site:
        stream = await trio.open_ssl_over_tcp_stream(*site.address, ssl_context=greedy, https_compatible=True)
        async with stream:
            await stream.do_handshake()
            assert stream.selected_alpn_protocol() == "http/1.1"


def trusting_client(files: TlsFiles) -> Path:
    assert files.cert
    return files.cert.with_name("ca.pem")
