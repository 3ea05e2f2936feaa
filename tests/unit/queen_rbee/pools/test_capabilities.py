"""The capabilities of engines and pools match what the queen admits."""

from pathlib import Path

import pytest

from llama_orch import VERSION
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapters import adapters
from llama_orch.engines.wire.passage import WORKLOADS
from queen_rbee.pools.capabilities import capabilities
from tests.unit.queen_rbee.api_client import api_client
from tests.unit.queen_rbee.queen_core import build_queen
from tests.unit.queen_rbee.scripted_engine import scripted_engine


def pool(pool_id: str, engine: str = "llamacpp", **known) -> PoolStatus:
    default = {"state": PoolState.READY, "live": True, "ready": True, "draining": False}
    return PoolStatus(**{**default, "pool_id": pool_id, "engine": engine, **known})


def test_pool_reports_engine_limits_and_features():
    result = capabilities(
        [pool("p", engine_version="b6000", ctx_max=4096, slots_total=4, models_available=["x"])], adapters()
    )
    [found] = result.pools
    assert (found.pool_id, found.engine, found.engine_version, found.ready) == ("p", "llamacpp", "b6000", True)
    assert (found.ctx_max, found.max_tokens, found.slots, found.models) == (4096, 4096, 4, ["x"])
    assert found.workloads == ["completion", "embedding", "rerank"]
    assert {"streaming", "cancel", "seed", "stop", "chat"} <= set(found.features)


def test_every_engine_is_listed_without_pools():
    result = capabilities([], adapters())
    assert [found.engine for found in result.engines] == sorted(adapters())
    assert all(
        (found.ctx_max, found.slots, found.pools, found.versions) == (None, 0, [], []) for found in result.engines
    )
    assert (result.pools, result.version, result.api_version) == ([], VERSION, "2")


def test_engine_has_largest_context_and_sum_of_slots():
    pools = [
        pool("b", ctx_max=8192, slots_total=2, engine_version="b2"),
        pool("a", ctx_max=4096, slots_total=4, engine_version="b1"),
        pool("c", slots_total=1),
        pool("d", "vllm", ctx_max=99_999, slots_total=64),
    ]
    result = capabilities(pools, adapters())
    [found] = [each for each in result.engines if each.engine == "llamacpp"]
    assert (found.ctx_max, found.max_tokens, found.slots) == (8192, 8192, 7)
    assert (found.versions, found.pools) == (["b1", "b2"], ["a", "b", "c"])
    assert [each.pool_id for each in result.pools] == ["a", "b", "c", "d"]


def test_pool_of_unsupported_engine_has_no_features():
    [found] = capabilities([pool("p", "other")], adapters()).pools
    assert (found.workloads, found.endpoints, found.features) == ([], [], [])


@pytest.mark.parametrize("name", sorted(adapters()))
def test_workloads_follow_from_adapter_endpoints(name: str):
    [found] = [each for each in capabilities([], adapters()).engines if each.engine == name]
    assert found.endpoints == sorted(adapters()[name].endpoints)
    assert set(found.workloads) == {WORKLOADS[endpoint] for endpoint in adapters()[name].endpoints}
    assert ("chat" in found.features) is ("chat" in found.endpoints)


@pytest.mark.parametrize("name", sorted(adapters()))
@pytest.mark.parametrize(
    ("workload", "request_"),
    [
        ("completion", TaskRequest(prompt="x")),
        ("embedding", TaskRequest(workload="embedding", inputs=("x",))),
        ("rerank", TaskRequest(workload="rerank", prompt="x", inputs=("y",))),
    ],
)
async def test_workload_is_listed_if_and_only_if_admitted(name: str, workload: str, request_: TaskRequest):
    async with scripted_engine() as engine:
        queen = build_queen(engine)
        known = queen.pool(engine=name)
        [found] = capabilities([known], adapters()).pools
        try:
            queen.intake.admit(request_, "c")
        except ApiError:
            assert workload not in found.workloads
        else:
            assert workload in found.workloads


async def test_capabilities_are_served_over_http(tmp_path: Path):
    served = api_client(tmp_path)
    known = pool("p", ctx_max=4096, slots_total=4)
    served.parts.registry.update("x", 0, [known])
    answer = await served.ask("GET", "/v2/meta/capabilities")
    assert answer.status == 200
    assert answer.json == capabilities([known], adapters()).model_dump(mode="json")
