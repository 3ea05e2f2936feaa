"""Drain and resume over HTTP, and their effect on the relay."""

import socket
from collections.abc import AsyncIterator

import pytest
import trio

from llama_orch.http.client.client import UpstreamError
from pool_managerd import draining
from tests.unit.pool_managerd.relay_site import LIMIT_S, TOKEN, RelaySite, relay_site

POOL = "/v2/pools/default"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOON_S = 2.0


@pytest.fixture
async def site() -> AsyncIterator[RelaySite]:
    with trio.fail_after(LIMIT_S):
        async with relay_site() as running:
            yield running


async def test_drain_counts_leases_refuses_requests_and_is_undone(site: RelaySite) -> None:
    async with site.ask("scripted") as running:
        assert await site.post(f"{POOL}/drain") == (202, {"pools": ["default"], "draining": True, "active_leases": 1})
        async with site.ask("hello") as refused:
            assert (refused.status, refused.headers["x-llama-orch-relay"]) == (503, "refused")
        await site.engine.say.send(b"")
        assert await running.read() == b""
    assert await site.post(f"{POOL}/resume") == (202, {"pools": ["default"], "draining": False, "active_leases": 0})
    async with site.ask("hello") as passed:
        assert passed.status == 418


async def test_node_is_drained_and_resumed(site: RelaySite) -> None:
    assert await site.post("/v2/drain", b'{"deadline_ms": 1000}') == (
        202,
        {"pools": ["default"], "draining": True, "active_leases": 0},
    )
    async with site.ask("hello") as refused:
        assert refused.status == 503
    assert (await site.post("/v2/resume"))[1]["draining"] is False


@pytest.mark.parametrize("how", ["stall", "silence"])
async def test_requests_at_the_deadline_are_cut_off(site: RelaySite, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "GRACE_S", 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_cut_off, site, how)
        await site.engine.arrived.wait()
        await site.post(f"{POOL}/drain", b'{"deadline_ms": 10}')
    assert site.engine.open == 0 or await connection_closed(site)


def connect_silent_client(port: int) -> socket.socket:
    """Connect a client that reads nothing and has a small receive buffer."""
    sock = socket.socket()
    sock.settimeout(LIMIT_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return sock


@pytest.mark.parametrize("before", [b"", HEALTH], ids=["first request", "after another request"])
async def test_client_that_does_not_read_is_cut_off_in_time(
    site: RelaySite, before: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(draining, "GRACE_S", 0.0)
    with connect_silent_client(site.port) as client:
        client.sendall(before + site.get("flood").replace("\n", "\r\n").encode())
        await until_stalled(site)
        drain = (await site.post(f"{POOL}/drain", b'{"deadline_ms": 0}'))[1]
        assert drain["active_leases"] == 1
        with trio.fail_after(SOON_S):
            await site.registry.leases.none_left("default")
            if site.engine.open:
                await site.engine.left.wait()
        assert ends_with_reset(client)
    await site.end()
    assert caplog.text == ""


def ends_with_reset(client: socket.socket) -> bool:
    """Return whether the connection ends with a reset, after all data has been read."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


async def until_stalled(site: RelaySite) -> None:
    """Return when the engine's writes have stalled."""
    flooded = -1
    while flooded != site.engine.flooded or not flooded:
        flooded = site.engine.flooded
        await trio.sleep(0.2)


async def expect_cut_off(site: RelaySite, how: str) -> None:
    """Check what a client gets: an incomplete answer or, before its head, an error of the relay."""
    if how == "silence":
        async with site.ask(how) as answer:
            assert (answer.status, answer.headers["x-llama-orch-relay"]) == (502, "broken")
        return
    with pytest.raises(UpstreamError):
        async with site.ask(how) as answer:
            await answer.read()


async def connection_closed(site: RelaySite) -> bool:
    await site.engine.left.wait()
    return site.engine.open == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"deadline_ms": -1}', "deadline_ms"),
        (b'{"deadline_ms": "5"}', "deadline_ms"),
        (b'{"x": 1}', "x"),
        (b"[]", "body"),
    ],
)
async def test_wrong_body_names_the_field(site: RelaySite, body: bytes, field: str) -> None:
    for path in (f"{POOL}/drain", "/v2/drain"):
        status, error = await site.post(path, body)
        assert (status, error["code"], error["fields"][0]["field"]) == (400, "INVALID_PARAMS", field)
    assert not site.registry.drained.node
    assert "default" not in site.registry.drained


@pytest.mark.parametrize("action", ["drain", "resume"])
async def test_unknown_pool_is_404(site: RelaySite, action: str) -> None:
    status, error = await site.post(f"/v2/pools/none/{action}")
    assert (status, error["code"], error["hint"]) == (404, "NOT_FOUND", "Pools: default.")


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [("identity", "\ufeff{}", b"202"), ("br", "{}", b"415"), ("gzip", "{}", b"400"), ("", " ", b"202")],
)
async def test_quart_routes_decode_bodies(site: RelaySite, encoding: str, body: str, status: bytes) -> None:
    head = f"POST {POOL}/drain HTTP/1.1\nHost: x\nAuthorization: Bearer {TOKEN}\n"
    response = await site.exchange(
        f"{head}Content-Encoding: {encoding}\nContent-Length: {len(body.encode())}\n\n{body}"
    )
    assert response.startswith(b"HTTP/1.1 " + status)


async def test_body_shape_is_checked_before_fields(site: RelaySite) -> None:
    body = ",".join(f'"k{number}":1' for number in range(1000))
    status, error = await site.post(f"{POOL}/drain", b"{%s}" % body.encode())
    assert (status, error["message"]) == (400, "body: has more than 500 objects, arrays and keys")
