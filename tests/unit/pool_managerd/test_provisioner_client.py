"""pool-managerd asks engine-provisioner by its socket; refusals and silence become errors with a hint."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.reloads import ReloadOrder
from llama_orch.http.client.client import request
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.serving import serve
from llama_orch.telemetry import correlation
from pool_managerd import provisioner_client
from pool_managerd.api.loading import LoadingRoutes
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.provisioner_client import SOCKET, ProvisionerClient
from tests.unit.pool_managerd.values import RESIDENCY, found, report

NOT_FOUND = (404, {"code": "NOT_FOUND", "message": "no such pool here"})
EXTERNAL = (409, {"code": "INVALID_PARAMS", "message": "pool default has mode external", "hint": "Start it there."})
BROKEN = (500, {"code": "INTERNAL", "message": "it broke"})
ACCEPTED = (202, {"pool_id": "default", "wanted": True})


class Provisioner:
    """A scripted engine-provisioner on a Unix socket, which records the requests that it gets."""

    def __init__(self, directory: Path, status: int, body: object) -> None:
        self.path = directory / SOCKET
        self.requests: list[str] = []
        self.bodies: list[str] = []
        self.heads: list[str] = []
        self._answer = json.dumps(body).encode()
        self._status = status

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.socket.socket(trio.socket.AF_UNIX) as listener:
            await listener.bind(str(self.path))
            listener.listen()
            task_status.started()
            while True:
                connection, _peer = await listener.accept()
                await self._serve(trio.SocketStream(connection))

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = bytes(await stream.receive_some(65536)).decode()
            self.requests.append(head.partition(" HTTP")[0])
            self.heads.append(head.partition("\r\n\r\n")[0])
            self.bodies.append(head.partition("\r\n\r\n")[2])
            text = f"HTTP/1.1 {self._status} X\r\ncontent-length: {len(self._answer)}\r\n\r\n"
            await stream.send_all(text.encode() + self._answer)


@asynccontextmanager
async def provisioner(directory: Path, status: int, body: object) -> AsyncIterator[Provisioner]:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            scripted = Provisioner(directory, status, body)
            await nursery.start(scripted.serve)
            yield scripted
            nursery.cancel_scope.cancel()


def client(directory: Path) -> ProvisionerClient:
    return ProvisionerClient(directory / "engines")


async def test_load_and_unload_are_passed_on(tmp_path: Path) -> None:
    async with provisioner(tmp_path, *ACCEPTED) as scripted:
        await client(tmp_path).load("default")
        await client(tmp_path).unload("default")
    assert scripted.requests == ["POST /v2/pools/default/load", "POST /v2/pools/default/unload"]


async def test_correlation_id_is_passed_on(tmp_path: Path) -> None:
    async with provisioner(tmp_path, *ACCEPTED) as scripted:
        await client(tmp_path).load("default")
        correlation.current.set("of-the-request")
        await client(tmp_path).load("default")
    assert ["x-correlation-id: of-the-request" in head for head in scripted.heads] == [False, True]


async def test_only_models_on_the_disk_can_be_named(tmp_path: Path) -> None:
    async with provisioner(tmp_path, 202, {"reload_id": "one", "state": "staging"}) as scripted:
        await client(tmp_path).reload("default", ReloadOrder(reload_id="one", new_model_ref="https://example.org/m"))
    assert scripted.requests == ["POST /v2/pools/default/reload"]
    assert json.loads(scripted.bodies[0])["on_disk"] is True


async def test_refused_reload_keeps_its_words_and_status(tmp_path: Path) -> None:
    refusal = {"code": "INVALID_PARAMS", "message": "the model m is not on the disk", "pool_id": "default"}
    async with provisioner(tmp_path, 409, refusal):
        with pytest.raises(ApiError, match="not on the disk") as caught:
            await client(tmp_path).reload("default", ReloadOrder(new_model_ref="m"))
    assert caught.value.status == 409


async def test_what_a_purge_has_freed_is_returned(tmp_path: Path) -> None:
    async with provisioner(tmp_path, 200, {"pool_id": "default", "freed_bytes": 5, "kept": ["m: it is pinned"]}):
        assert (await client(tmp_path).purge("default")).freed_bytes == 5


async def test_socket_of_systemd_is_used_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioner_client, "SYSTEM_DIRECTORY", tmp_path)
    async with provisioner(tmp_path, *ACCEPTED) as scripted:
        await client(tmp_path / "var/lib").load("default")
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        (*NOT_FOUND, 409, "is not in engine-provisioner's pools file"),
        (*EXTERNAL, 409, "pool default has mode external"),
        (*BROKEN, 503, "engine-provisioner answers 500: it broke"),
        (404, "no error body", 503, "engine-provisioner answers 404"),
    ],
)
async def test_refusal_is_an_error(tmp_path: Path, status: int, body: object, expected: int, words: str) -> None:
    async with provisioner(tmp_path, status, body):
        with pytest.raises(ApiError) as caught:
            await client(tmp_path).load("default")
    assert caught.value.status == expected
    assert words in caught.value.body.message
    assert caught.value.body.hint


async def test_absent_provisioner_is_503_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioner_client, "SYSTEM_DIRECTORY", tmp_path)
    with pytest.raises(ApiError) as caught:
        await client(tmp_path).load("default")
    body = caught.value.body
    assert (caught.value.status, body.code, body.retriable) == (503, ErrorCode.POOL_UNAVAILABLE, True)
    assert str(tmp_path / SOCKET) in body.message
    assert body.hint is not None
    assert "systemctl status engine-provisioner" in body.hint


@asynccontextmanager
async def served(registry: NodePools, directory: Path) -> AsyncIterator[int]:
    """Serve the routes to this machine; yield the port."""
    app, stop = create_app("test", list, CollectorRegistry()), trio.Event()
    mount(app, None, LoadingRoutes(registry, client(directory)))
    sock = socket.create_server(("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, Gate(app, Access()), [sock], shutdown=stop, drain_s=0.0))
        yield sock.getsockname()[1]
        stop.set()


async def post(port: int, path: str) -> tuple[int, dict[str, object]]:
    async with request("POST", f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, json.loads(await answer.read())


async def test_accepted_load_is_answered_with_the_pool(tmp_path: Path) -> None:
    registry = NodePools()
    registry.set_reports({"default": report(PoolState.UNLOADED, residency=RESIDENCY)})
    async with provisioner(tmp_path, *ACCEPTED), served(registry, tmp_path) as port:
        status, pool = await post(port, "/v2/pools/default/preload")
        assert (status, pool["state"], pool["models_available"]) == (202, "unloaded", ["tiny"])
        assert (await post(port, "/v2/pools/other/preload"))[0] == 404
        assert (await post(port, "/v2/pools/other/unload"))[0] == 404


async def test_busy_pool_is_not_unloaded(tmp_path: Path) -> None:
    registry = NodePools()
    registry.take(found())
    async with provisioner(tmp_path, *ACCEPTED) as scripted, served(registry, tmp_path) as port:
        with registry.leases.held(("default", "r0"), lambda: None):
            status, error = await post(port, "/v2/pools/default/unload")
        assert (status, error["pool_id"], error["retriable"]) == (409, "default", True)
        assert "busy with 1 relayed requests" in str(error["message"])
        assert scripted.requests == []
        assert (await post(port, "/v2/pools/default/unload"))[0] == 202
