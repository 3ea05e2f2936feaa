"""Routes that load and unload a pool."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import trio
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from engine_provisioner.api.pools import PoolRoutes
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.supervise.pool_set import PoolSet
from engine_provisioner.supervise.reloads import Reloads
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.http.server.app import create_app
from llama_orch.http.server.mounting import mount
from tests.unit.engine_provisioner.pools import pool


@dataclass
class Configured:
    """The pools that the routes see: one of this daemon, and an external one."""

    default: Wanted

    async def configured(self) -> dict[str, Pool]:
        theirs = pool(id="theirs", model=None, provisioning={"mode": "external", "url": "http://127.0.0.1:1"})
        return {"default": pool(), "theirs": theirs}

    def wanted(self, pool_id: str) -> Wanted:
        assert pool_id == "default"
        return self.default


@pytest.fixture
def wanted() -> Wanted:
    return Wanted(False)


@pytest.fixture
async def app(wanted: Wanted) -> AsyncIterator[QuartTrio]:
    app = create_app("engine-provisioner", list, CollectorRegistry())
    mount(app, None, PoolRoutes(cast(PoolSet, Configured(wanted)), cast(Reloads, None)))
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
