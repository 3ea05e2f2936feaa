"""The queen's own health checks say whether a replica serves, and are counted and timed."""

import pytest
import trio
import trio.lowlevel

from queen_rbee.dispatch.health_checks import is_well, keep_checking
from queen_rbee.dispatch.hop import DIRECT
from tests.unit.queen_rbee.core import SOON_S, Queen, running

CHECKS = "orchd_pool_health_checks_total"


def counted(queen: Queen, outcome: str, reason: str) -> float:
    labels = {"pool_id": "p", "outcome": outcome, "reason": reason}
    return queen.dispatcher.metrics.registry.get_sample_value(CHECKS, labels) or 0


@pytest.mark.parametrize(
    ("health", "well", "outcome", "reason"),
    [
        (b"200", True, "success", "ready"),
        (b"503", False, "success", "starting"),
        (b"500", False, "error", "unready"),
    ],
)
async def test_health_of_a_replica_is_what_its_engine_says(health, well, outcome, reason):
    async with running() as queen:
        queen.engine.health = health
        (replica,) = queen.dispatcher.registry.replicas.all()
        assert await is_well(replica, DIRECT, queen.dispatcher.metrics) is well
        assert counted(queen, outcome, reason) == 1


async def test_replica_that_cannot_be_reached_is_not_well():
    async with running() as queen:
        queen.pool(url="http://127.0.0.1:1")
        (replica,) = queen.dispatcher.registry.replicas.all()
        assert not await is_well(replica, DIRECT, queen.dispatcher.metrics)
        assert counted(queen, "error", "unreachable") == 1


async def test_ready_replicas_are_checked_and_timed_without_any_task():
    async with running() as queen, trio.open_nursery() as nursery:
        metrics = queen.dispatcher.metrics
        nursery.start_soon(keep_checking, queen.dispatcher.registry, DIRECT, metrics)
        with trio.fail_after(SOON_S):
            while not counted(queen, "success", "ready"):
                await trio.lowlevel.checkpoint()
        assert metrics.registry.get_sample_value("orchd_pool_health_check_duration_ms_count", {"pool_id": "p"}) == 1
        nursery.cancel_scope.cancel()
