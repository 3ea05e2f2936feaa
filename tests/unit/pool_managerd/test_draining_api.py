"""Drain and resume over HTTP, and what the relay makes of them."""

from collections.abc import AsyncIterator

import pytest
import trio

from llama_orch.http.client import UpstreamError
from pool_managerd import draining
from tests.unit.pool_managerd.relay_site import LIMIT_S, RelaySite, relay_site

POOL = "/v2/pools/default"


@pytest.fixture
async def site() -> AsyncIterator[RelaySite]:
    with trio.fail_after(LIMIT_S):
        async with relay_site() as running:
            yield running


async def test_a_drain_counts_what_passes_refuses_what_comes_and_is_undone(site: RelaySite) -> None:
    async with site.ask("told") as running:
        assert await site.post(f"{POOL}/drain") == (202, {"pools": ["default"], "draining": True, "active_leases": 1})
        async with site.ask("hello") as refused:
            assert (refused.status, refused.headers["x-llama-orch-relay"]) == (503, "refused")
        await site.engine.say.send(b"")
        assert await running.read() == b""
    assert await site.post(f"{POOL}/resume") == (202, {"pools": ["default"], "draining": False, "active_leases": 0})
    async with site.ask("hello") as passed:
        assert passed.status == 418


async def test_the_node_as_a_whole(site: RelaySite) -> None:
    assert await site.post("/v2/drain", b'{"deadline_ms": 1000}') == (
        202,
        {"pools": ["default"], "draining": True, "active_leases": 0},
    )
    async with site.ask("hello") as refused:
        assert refused.status == 503
    assert (await site.post("/v2/resume"))[1]["draining"] is False


@pytest.mark.parametrize("how", ["stall", "silence"])
async def test_what_passes_at_the_deadline_is_cut_off(
    site: RelaySite, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "GRACE_S", 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut_off, site, how)
        await site.engine.arrived.wait()
        await site.post(f"{POOL}/drain", b'{"deadline_ms": 10}')
    assert site.engine.open == 0 or await left(site)


async def cut_off(site: RelaySite, how: str) -> None:
    """What the queen sees: an incomplete answer, or before its head an error of the relay's."""
    if how == "silence":
        async with site.ask(how) as answer:
            assert (answer.status, answer.headers["x-llama-orch-relay"]) == (502, "broken")
        return
    with pytest.raises(UpstreamError):
        async with site.ask(how) as answer:
            await answer.read()


async def left(site: RelaySite) -> bool:
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
async def test_a_body_that_is_wrong_is_told_where(site: RelaySite, body: bytes, field: str) -> None:
    for path in (f"{POOL}/drain", "/v2/drain"):
        status, told = await site.post(path, body)
        assert (status, told["code"], told["fields"][0]["field"]) == (400, "INVALID_PARAMS", field)
    assert not site.registry.drained.node
    assert "default" not in site.registry.drained


@pytest.mark.parametrize("what", ["drain", "resume"])
async def test_a_pool_that_nobody_knows_is_404(site: RelaySite, what: str) -> None:
    status, told = await site.post(f"/v2/pools/none/{what}")
    assert (status, told["code"], told["hint"]) == (404, "NOT_FOUND", "Pools: default.")
