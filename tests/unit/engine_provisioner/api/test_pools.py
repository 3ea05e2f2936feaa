"""Routes that load and unload a pool, and that every declared route is served."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from engine_provisioner.api.pools import PoolRoutes
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.http.server.app import create_app
from llama_orch.http.server.mounting import mount


@pytest.fixture
def wanted() -> Wanted:
    return Wanted(False)


@pytest.fixture
async def app(wanted: Wanted) -> AsyncIterator[QuartTrio]:
    app = create_app("engine-provisioner", list, CollectorRegistry())
    mount(app, None, PoolRoutes({"default": wanted}, frozenset({"theirs"})))
    with trio.fail_after(10):
        yield app


async def post(app: QuartTrio, path: str) -> tuple[int, dict[str, Any]]:
    answer = await app.test_client().post(path)
    return answer.status_code, json.loads(await answer.get_data())


async def test_intents_are_accepted_and_idempotent(app: QuartTrio, wanted: Wanted) -> None:
    for verb, loaded in (("load", True), ("load", True), ("unload", False), ("unload", False)):
        assert await post(app, f"/v2/pools/default/{verb}") == (202, {"pool_id": "default", "wanted": loaded})
        assert wanted.loaded is loaded
    assert wanted.requests == 4


async def test_external_pool_is_refused(app: QuartTrio) -> None:
    status, error = await post(app, "/v2/pools/theirs/load")
    assert (status, error["pool_id"]) == (409, "theirs")
    assert "mode external" in error["message"]


async def test_unknown_pool_is_refused_with_the_known_ones(app: QuartTrio) -> None:
    status, error = await post(app, "/v2/pools/nowhere/unload")
    assert (status, error["code"]) == (404, "NOT_FOUND")
    assert "Pools: default." in error["hint"]
