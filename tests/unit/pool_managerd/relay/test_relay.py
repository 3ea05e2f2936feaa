"""The relay over real sockets: forwarding, refusals, disconnects, broken engines."""

import json
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import trio

from llama_orch.http.client.client import UpstreamError
from llama_orch.http.tls.secured import RESET
from llama_orch.settings.api import BODY_LIMIT
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.pool_status import DrainState
from pool_managerd.relay.relay import REENCODING_MARGIN
from tests.unit.pool_managerd.relay_site import LIMIT_S, TOKEN, RelaySite, relay_site
from tests.unit.pool_managerd.values import LOADING, READY
from tests.unit.recorded_spans import attributes, recorded_spans, traceparent

SOON_S = 0.1
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def site() -> AsyncIterator[RelaySite]:
    async with relay_site() as running:
        yield running


@pytest.fixture(autouse=True)
async def limit() -> AsyncIterator[None]:
    with trio.fail_after(LIMIT_S):
        yield


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 -- any condition
        await trio.sleep(0.001)


def leases(registry: NodePools) -> int:
    pool = registry.pool("default")
    assert pool
    return pool.active_leases


async def test_answer_passes_with_status_headers_and_body(site: RelaySite) -> None:
    async with site.ask("v1/hello") as answer:
        assert (answer.status, await answer.read()) == (418, b"hello")
    assert answer.headers["content-type"] == "text/plain"
    assert (answer.headers["x-compute"], answer.headers["content-length"]) == ("7", "5")
    assert "x-llama-orch-relay" not in answer.headers
    assert answer.headers.get("server") != "odd"


async def test_request_passes_without_its_token(site: RelaySite) -> None:
    async with site.ask(
        "a/b%20c?x=1&x=%2F", body=b'{"a":1}', x_correlation_id="mine", traceparent=TRACE, cookie="secret=1"
    ) as answer:
        assert answer.headers["x-correlation-id"] == "mine"
    (received,) = site.engine.asked
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /a/b%20c?x=1&x=%2f http/1.1"
    assert body == b'{"a":1}'
    assert "x-correlation-id: mine" in lines
    assert f"traceparent: {TRACE}" in lines
    assert "content-type: application/json" in lines
    assert not [line for line in lines if line.startswith(("authorization", "cookie"))]
    assert TOKEN.encode() not in received


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_passes(site: RelaySite, method: str) -> None:
    async with site.ask("hello", method, body=b"") as answer:
        assert (answer.status, await answer.read()) == (418, b"hello")
    assert site.engine.asked[0].startswith(f"{method} /hello ".encode())


async def test_head_request_gets_only_the_head(site: RelaySite) -> None:
    answer = await site.exchange(site.get("hello").replace("GET", "HEAD", 1))
    assert site.engine.asked[0].startswith(b"HEAD /hello ")
    assert answer.lower().partition(b"\r\n\r\n")[2] == b""
    assert b"content-length: 5" in answer.lower()


async def test_answer_without_a_body_passes(site: RelaySite) -> None:
    async with site.ask("empty") as answer:
        assert (answer.status, await answer.read()) == (204, b"")


async def test_answer_delimited_by_close_is_complete(site: RelaySite) -> None:
    async with site.ask("old") as answer:
        assert await answer.read() == b"until the end"


async def test_each_chunk_of_a_stream_passes_immediately(site: RelaySite) -> None:
    async with site.ask("scripted") as answer:  # the head is here before any piece
        chunks = answer.chunks()
        for piece in (b"data: 1\n\n", b"data: 2\n\n", b"x" * 100_000):
            await site.engine.say.send(piece)
            got = b""
            while len(got) < len(piece):
                got += await anext(chunks)
            assert got == piece
        await site.engine.say.send(b"")
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


async def test_client_that_does_not_read_blocks_the_engine(site: RelaySite) -> None:
    async with site.ask("flood"):
        seen = -1
        while seen != site.engine.flooded:
            seen = site.engine.flooded
            await trio.sleep(0.2)
        assert seen < 64 << 20
    await until(lambda: site.engine.open == 0)


@pytest.mark.parametrize("how", ["stall", "silence", "scripted"])
async def test_disconnect_closes_the_engine_connection_at_once(site: RelaySite, how: str) -> None:
    stream = await site.raw(site.get(how))
    await site.engine.arrived.wait()
    if how == "stall":
        await stream.receive_some(65536)
    assert leases(site.registry) == 1
    left, began_s = site.engine.left, trio.current_time()
    await stream.aclose()
    if how == "scripted":  # the fake engine only notices on a write
        await until(lambda: leases(site.registry) == 0)
    else:
        await left.wait()
    assert trio.current_time() - began_s < SOON_S
    await until(lambda: leases(site.registry) == 0)


@pytest.mark.parametrize("how", ["cut", "short"])
async def test_broken_engine_leaves_an_incomplete_answer(
    site: RelaySite, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    received = await site.exchange(site.get(how))
    assert received.startswith(b"HTTP/1.1 ") or not received
    assert not received.endswith(b"0\r\n\r\n")
    with pytest.raises(UpstreamError, match="before the answer was complete"):
        async with site.ask(how) as answer:
            await answer.read()
    assert caplog.text == ""
    assert leases(site.registry) == 0


async def test_broken_engine_is_visible_on_a_reused_connection(
    site: RelaySite, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await site.exchange("GET /health HTTP/1.1\nhost: localhost\n\n" + site.get("cut"))
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    await site.end()
    assert caplog.text == ""


@pytest.mark.parametrize("how", ["hangup", "nonsense"])
async def test_engine_without_a_head_is_marked_broken(site: RelaySite, how: str) -> None:
    async with site.ask(how) as answer:
        assert (answer.status, answer.headers["x-llama-orch-relay"]) == (502, "broken")
        body = json.loads(await answer.read())
    assert (body["code"], body["retriable"], body["pool_id"]) == ("WORKER_RESET", True, "default")


async def test_unreachable_engine_is_marked_refused(site: RelaySite) -> None:
    replica = site.registry.replicas[0]
    gone = replica.handoff.model_copy(update={"url": "http://127.0.0.1:1"})
    object.__setattr__(replica, "handoff", gone)
    async with site.ask("hello") as answer:
        assert (answer.status, answer.headers["x-llama-orch-relay"]) == (502, "refused")
        assert "Connection refused" in json.loads(await answer.read())["message"]
    assert site.engine.asked == []


async def test_unknown_pool_is_404(site: RelaySite) -> None:
    async with site.ask("hello", pool="none") as answer:
        assert (answer.status, answer.headers["x-llama-orch-relay"]) == (404, "refused")


async def test_unready_pool_is_503(site: RelaySite) -> None:
    incarnation = site.registry.replicas[0].incarnation
    site.registry.apply_probe(incarnation, LOADING)
    async with site.ask("hello") as answer:
        assert (answer.status, answer.headers["x-llama-orch-relay"]) == (503, "refused")
        body = json.loads(await answer.read())
    assert (body["code"], body["retriable"]) == ("POOL_UNREADY", True)
    assert "Loading model" in body["message"]
    site.registry.apply_probe(incarnation, READY)
    async with site.ask("hello") as answer:
        assert answer.status == 418


async def test_drained_pool_refuses_new_requests_only(site: RelaySite) -> None:
    async with site.ask("scripted") as running:
        site.registry.set_drained(DrainState(pools=frozenset({"default"})))
        async with site.ask("hello") as answer:
            assert (answer.status, answer.headers["x-llama-orch-relay"]) == (503, "refused")
            assert "draining" in json.loads(await answer.read())["message"]
        await site.engine.say.send(b"last")
        await site.engine.say.send(b"")
        assert await running.read() == b"last"


async def test_missing_token_is_401(site: RelaySite) -> None:
    async with site.ask("hello", authorization="Bearer wrong") as answer:
        assert answer.status == 401
    assert site.engine.asked == []


@pytest.mark.parametrize("path", ["../v2/gpus", "a/../../b", "%2e%2e/b", "%252e%252e/b", "..%2fb", r"..\b", "a#b", "."])
async def test_path_that_leaves_the_engine_is_refused(site: RelaySite, path: str) -> None:
    answer = await site.exchange(site.get(path))
    assert answer.split(b" ")[1] in (b"400", b"404")
    assert site.engine.asked == []


async def test_absolute_target_is_not_followed(site: RelaySite) -> None:
    for target, status in (
        ("http://127.0.0.1:1/v2/pools/default/engine/hello", b"418"),
        ("/v2/pools/default/engine//evil.example/hello", b"418"),
    ):
        answer = await site.exchange(f"GET {target} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n\n")
        assert answer.split(b" ")[1] == status
    assert [asked.split(b" ")[1] for asked in site.engine.asked] == [b"/hello", b"/evil.example/hello"]


@pytest.mark.parametrize("hot", [True, False])
async def test_disconnect_during_the_request_is_not_an_error(
    site: RelaySite, hot: bool, caplog: pytest.LogCaptureFixture
) -> None:
    request_text = site.get("hello")
    sent = (request_text if hot else request_text.replace("/engine/hello", "/status")).replace("\n", "\r\n").encode()
    for _client in range(20):
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            client.sendall(sent)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    async with site.ask("hello") as answer:  # by its turn, all others have had theirs
        assert answer.status == 418
    await until(lambda: leases(site.registry) == 0 and site.engine.open == 0)
    assert caplog.messages == []


@pytest.mark.parametrize("target", ["http://[/v2/pools", "?after=1", "http://x", "//[/v2/pools", "*", "[", "x:y"])
async def test_target_that_is_not_a_path_is_refused(
    site: RelaySite, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await site.exchange(f"GET {target} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n\n")
    assert answer.split(b" ")[1] in (b"400", b"404")
    assert b'"code"' in answer
    assert caplog.messages == []


async def test_oversized_body_is_refused(site: RelaySite) -> None:
    async with site.ask("hello", body=bytes(BODY_LIMIT + REENCODING_MARGIN + 1)) as answer:
        assert (answer.status, answer.headers["x-llama-orch-relay"]) == (413, "refused")
        assert b"LLORCH_BODY_LIMIT" in await answer.read()


async def test_running_requests_hold_leases(site: RelaySite) -> None:
    revision = site.registry.revision
    async with site.ask("scripted"), site.ask("scripted"):
        assert leases(site.registry) == 2
        assert site.registry.revision > revision
    await until(lambda: leases(site.registry) == 0)


async def test_stop_drains_requests_up_to_the_limit() -> None:
    async with relay_site(drain_s=LIMIT_S) as site, site.ask("scripted") as answer:
        site.stop.set()
        await site.engine.say.send(b"last")
        await site.engine.say.send(b"")
        assert await answer.read() == b"last"
    async with relay_site(drain_s=0.05) as site:
        async with site.ask("stall") as answer:
            site.stop.set()
            with pytest.raises(UpstreamError):
                await answer.read()
        await until(lambda: leases(site.registry) == 0)


async def test_engine_gets_the_relays_own_span() -> None:
    async with recorded_spans() as spans, relay_site() as site:
        async with site.ask("hello", traceparent=TRACE) as answer:
            await answer.read()
        async with site.ask("hello", "GET", body=b"") as answer:
            await answer.read()
        (received, health_check) = site.engine.asked
    assert spans.tree == {"POST /v2/pools/{pool_id}/engine/{path...}": {"POST": {}}}
    call = spans.named("POST")
    assert f"traceparent: {traceparent(call)}-01" in received.decode().lower()
    assert call.parent
    assert traceparent(call).startswith(TRACE[:35])
    assert attributes(call)["http.response.status_code"] == 418
    assert b"traceparent" not in health_check.lower()
