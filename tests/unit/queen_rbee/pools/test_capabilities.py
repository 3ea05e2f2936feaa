"""What can be asked of each engine and each pool is what the queen can really put to it."""

from pathlib import Path

import pytest

from llama_orch import VERSION
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.engines import ADAPTERS
from queen_rbee.engines.passage import WORKLOADS
from queen_rbee.pools.capabilities import capabilities
from tests.unit.queen_rbee.api_client import api_client
from tests.unit.queen_rbee.queen_core import build_queen
from tests.unit.queen_rbee.scripted_engine import scripted_engine


def pool(pool_id: str, engine: str = "llamacpp", **known) -> PoolStatus:
    plain = {"state": PoolState.READY, "live": True, "ready": True, "draining": False}
    return PoolStatus(**{**plain, "pool_id": pool_id, "engine": engine, **known})


def test_a_pool_says_what_it_is_and_how_much_it_takes():
    told = capabilities(
        [pool("p", engine_version="b6000", ctx_max=4096, slots_total=4, models_available=["x"])], ADAPTERS
    )
    [found] = told.pools
    assert (found.pool_id, found.engine, found.engine_version, found.ready) == ("p", "llamacpp", "b6000", True)
    assert (found.ctx_max, found.max_tokens, found.slots, found.models) == (4096, 4096, 4, ["x"])
    assert found.workloads == ["completion", "embedding", "rerank"]
    assert {"streaming", "cancel", "seed", "stop", "chat"} <= set(found.features)


def test_every_engine_is_there_whether_or_not_there_is_a_pool_of_it():
    told = capabilities([], ADAPTERS)
    assert [found.engine for found in told.engines] == sorted(ADAPTERS)
    assert all((found.ctx_max, found.slots, found.pools, found.versions) == (None, 0, [], []) for found in told.engines)
    assert (told.pools, told.version, told.api_version) == ([], VERSION, "2")


def test_an_engine_has_the_most_context_and_all_slots_of_its_pools():
    pools = [
        pool("b", ctx_max=8192, slots_total=2, engine_version="b2"),
        pool("a", ctx_max=4096, slots_total=4, engine_version="b1"),
        pool("c", slots_total=1),
        pool("d", "vllm", ctx_max=99_999, slots_total=64),
    ]
    told = capabilities(pools, ADAPTERS)
    [found] = [each for each in told.engines if each.engine == "llamacpp"]
    assert (found.ctx_max, found.max_tokens, found.slots) == (8192, 8192, 7)
    assert (found.versions, found.pools) == (["b1", "b2"], ["a", "b", "c"])
    assert [each.pool_id for each in told.pools] == ["a", "b", "c", "d"]


def test_a_pool_of_an_engine_that_is_not_spoken_to_can_be_asked_for_nothing():
    [found] = capabilities([pool("p", "other")], ADAPTERS).pools
    assert (found.workloads, found.endpoints, found.features) == ([], [], [])


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_endpoints_are_those_of_the_adapter_and_workloads_follow_from_them(name: str):
    [found] = [each for each in capabilities([], ADAPTERS).engines if each.engine == name]
    assert found.endpoints == sorted(ADAPTERS[name].endpoints)
    assert set(found.workloads) == {WORKLOADS[endpoint] for endpoint in ADAPTERS[name].endpoints}
    assert ("chat" in found.features) is ("chat" in found.endpoints)


@pytest.mark.parametrize("name", sorted(ADAPTERS))
@pytest.mark.parametrize(
    ("workload", "request_"),
    [
        ("completion", TaskRequest(prompt="x")),
        ("embedding", TaskRequest(workload="embedding", inputs=("x",))),
        ("rerank", TaskRequest(workload="rerank", prompt="x", inputs=("y",))),
    ],
)
async def test_a_workload_is_named_just_where_admission_lets_it_in(name: str, workload: str, request_: TaskRequest):
    async with scripted_engine() as engine:
        queen = build_queen(engine)
        known = queen.pool(engine=name)
        [found] = capabilities([known], ADAPTERS).pools
        try:
            queen.intake.admit(request_, "c")
        except ApiError:
            assert workload not in found.workloads
        else:
            assert workload in found.workloads


async def test_clients_see_them_over_http(tmp_path: Path):
    served = api_client(tmp_path)
    known = pool("p", ctx_max=4096, slots_total=4)
    served.parts.registry.update("x", 0, [known])
    answer = await served.ask("GET", "/v2/meta/capabilities")
    assert answer.status == 200
    assert answer.json == capabilities([known], ADAPTERS).model_dump(mode="json")
