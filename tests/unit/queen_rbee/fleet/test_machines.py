"""What the queen finds out about machines: GPUs of all of them, and whether she reaches a node; within a limit."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.operations import DrainRequest
from llama_orch.settings.types import Secret
from queen_rbee.fleet.managers import Manager, Managers, gpus, reachability
from tests.unit.queen_rbee.fleet_rig import FleetRig

GPU = {"index": 0, "uuid": "GPU-1", "name": "H100", "vram_total_bytes": 80, "vram_free_bytes": 70}
NOBODY = "http://127.0.0.1:1"
TOKEN = Secret("0123456789abcdef")


@asynccontextmanager
async def manager(status: int, body: object) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A pool-managerd that answers every request so; its URL and what it was asked."""
    asked: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some(65536)))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


def at_home(rig: FleetRig, *urls: str) -> Managers:
    return Managers(rig.fleet, rig.registry, urls, TOKEN)


async def test_gpus_of_all_nodes_are_listed_by_node_and_who_cannot_tell_is_named():
    rig = FleetRig()
    async with manager(200, {"gpus": [GPU], "count": 1, "problem": None}) as (url, asked):
        await rig.join("n2", address=url)
        await rig.join("n1", address=url)
        await rig.join("away", address=NOBODY)
        found = await gpus(at_home(rig))
    assert [(gpu.node_id, gpu.name) for gpu in found.gpus] == [("n1", "H100"), ("n2", "H100")]
    assert set(found.problems) == {"away"}
    assert b"Bearer 0123456789abcdef" in asked[0]


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, {}), (200, b"<html>"), (200, {"gpus": "many"}), (200, {"gpus": [], "problem": "no NVML"})],
)
async def test_an_answer_of_any_shape_is_a_problem_and_no_failure(status, body):
    rig = FleetRig()
    async with manager(status, body) as (url, _asked):
        found = await gpus(at_home(rig, url))
    assert (found.gpus, list(found.problems)) == ([], [url])


async def test_a_node_is_reachable_when_it_answers_with_the_token():
    rig = FleetRig()
    async with manager(200, {"pools": []}) as (url, _asked):
        await rig.join(address=url)
        found = await reachability(at_home(rig), rig.fleet.node("n1"))
    assert (found.reachable, found.problem, found.latency_ms is None) == (True, None, False)


@pytest.mark.parametrize("status", [401, 503])
async def test_a_node_that_refuses_or_is_not_there_is_not_reachable_and_it_is_said_why(status):
    rig = FleetRig()
    async with manager(status, {}) as (url, _asked):
        await rig.join(address=url)
        found = await reachability(at_home(rig), rig.fleet.node("n1"))
    assert (found.reachable, found.problem) == (False, f"it answers {status}")
    gone = await reachability(at_home(rig), rig.fleet.node("n1"))
    assert not gone.reachable
    assert "cannot connect" in (gone.problem or "")


async def test_what_a_manager_refuses_is_told_in_its_own_words():
    rig = FleetRig()
    refusal = {"code": "NOT_FOUND", "message": "no such pool here"}
    async with manager(404, refusal) as (url, asked):
        with pytest.raises(ApiError) as caught:
            await at_home(rig).bid(Manager(url, "n1"), "/v2/pools/p/drain", DrainRequest(deadline_ms=5))
    assert caught.value.status == 503
    assert "node n1" in caught.value.body.message
    assert "no such pool here" in caught.value.body.message
    assert asked[0].endswith(b'{"deadline_ms":5}')


async def test_without_anybody_who_answers_for_a_pool_it_is_said_what_to_look_at():
    with pytest.raises(ApiError) as caught:
        at_home(FleetRig(), NOBODY).of_pool(("p", ""))
    assert "systemctl status pool-managerd" in (caught.value.body.hint or "")
