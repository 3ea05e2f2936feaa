"""Requests to pool-managerds: GPU lists, reachability and control, with failures reported as problems."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.operations import DrainRequest
from llama_orch.settings.types import Secret
from queen_rbee.fleet.managers import PoolManager, PoolManagers, gpus, reachability, unfence_gpu
from tests.unit.queen_rbee.fleet_rig import FleetRig

GPU = {"index": 0, "uuid": "GPU-1", "name": "H100", "vram_total_bytes": 80, "vram_free_bytes": 70}
UNREACHABLE = "http://127.0.0.1:1"
TOKEN = Secret("0123456789abcdef")


@asynccontextmanager
async def manager(status: int, body: object) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a pool-managerd that gives every request this answer; yield its URL and the requests."""
    requests: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        requests.append(bytes(await stream.receive_some(65536)))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", requests
        nursery.cancel_scope.cancel()


def managers(rig: FleetRig, *urls: str) -> PoolManagers:
    return PoolManagers(rig.fleet, rig.registry, urls, TOKEN)


async def test_gpus_are_listed_by_node_with_failed_nodes():
    rig = FleetRig()
    async with manager(200, {"gpus": [GPU], "count": 1, "problem": None}) as (url, requests):
        await rig.join("n2", address=url)
        await rig.join("n1", address=url)
        await rig.join("away", address=UNREACHABLE)
        found = await gpus(managers(rig))
    assert [(gpu.node_id, gpu.name) for gpu in found.gpus] == [("n1", "H100"), ("n2", "H100")]
    assert set(found.problems) == {"away"}
    assert b"Bearer 0123456789abcdef" in requests[0]


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, {}), (200, b"<html>"), (200, {"gpus": "many"}), (200, {"gpus": [], "problem": "no NVML"})],
)
async def test_malformed_gpu_answer_is_reported_as_problem(status, body):
    rig = FleetRig()
    async with manager(status, body) as (url, _requests):
        found = await gpus(managers(rig, url))
    assert (found.gpus, list(found.problems)) == ([], [url])


async def test_node_that_accepts_token_is_reachable():
    rig = FleetRig()
    async with manager(200, {"pools": []}) as (url, _requests):
        await rig.join(address=url)
        found = await reachability(managers(rig), rig.fleet.node("n1"))
    assert (found.reachable, found.problem, found.latency_ms is None) == (True, None, False)


@pytest.mark.parametrize("status", [401, 503])
async def test_unreachable_node_is_reported_with_reason(status):
    rig = FleetRig()
    async with manager(status, {}) as (url, _requests):
        await rig.join(address=url)
        found = await reachability(managers(rig), rig.fleet.node("n1"))
    assert (found.reachable, found.problem) == (False, f"status {status}")
    stopped = await reachability(managers(rig), rig.fleet.node("n1"))
    assert not stopped.reachable
    assert "cannot connect" in (stopped.problem or "")


async def test_refusal_of_pool_managerd_is_passed_on():
    rig = FleetRig()
    refusal = {"code": "NOT_FOUND", "message": "no such pool here"}
    async with manager(404, refusal) as (url, requests):
        with pytest.raises(ApiError) as caught:
            await managers(rig).post(PoolManager(url, "n1"), "/v2/pools/p/drain", DrainRequest(deadline_ms=5))
    assert caught.value.status == 503
    assert "node n1" in caught.value.body.message
    assert "no such pool here" in caught.value.body.message
    assert requests[0].endswith(b'{"deadline_ms":5}')


async def test_pool_without_pool_managerd_gives_hint():
    with pytest.raises(ApiError) as caught:
        managers(FleetRig(), UNREACHABLE).for_pool(("p", ""))
    assert "systemctl status pool-managerd" in (caught.value.body.hint or "")


FENCED = GPU | {"state": "fenced"}


@pytest.mark.parametrize("name", ["0", "GPU-1"])
async def test_fence_is_ended_on_the_machine_of_the_gpu(name):
    rig = FleetRig()
    async with manager(200, {"gpus": [FENCED]}) as (url, requests):
        await unfence_gpu(managers(rig, url), name, None)
    assert requests[-1].startswith(b"POST /v2/gpus/GPU-1/unfence HTTP")


@pytest.mark.parametrize(
    ("name", "gpus_there", "status", "words"),
    [
        ("GPU-9", [FENCED], 404, "there is no GPU GPU-9"),
        ("0", [GPU], 409, "GPU GPU-1 is not fenced, but ok"),
        ("0", [FENCED, FENCED | {"uuid": "GPU-2"}], 409, "several machines have a GPU 0"),
    ],
)
async def test_other_unfence_is_refused_with_reason(name, gpus_there, status, words):
    rig = FleetRig()
    async with manager(200, {"gpus": gpus_there}) as (url, _requests):
        with pytest.raises(ApiError) as refused:
            await unfence_gpu(managers(rig, url), name, None)
    assert (refused.value.status, words in refused.value.body.message) == (status, True)
