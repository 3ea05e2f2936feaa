"""Health checks tell whether a replica serves, and are counted and timed."""

import pytest
import trio
import trio.lowlevel

from queen_rbee.dispatch.health_checks import check_forever, is_healthy
from queen_rbee.dispatch.hop import DIRECT
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, QueenCore, running_queen

CHECKS = "orchd_pool_health_checks_total"


def count_of(queen: QueenCore, outcome: str, reason: str) -> float:
    labels = {"pool_id": "p", "outcome": outcome, "reason": reason}
    return queen.metrics.registry.get_sample_value(CHECKS, labels) or 0


@pytest.mark.parametrize(
    ("status", "healthy", "outcome", "reason"),
    [
        (b"200", True, "success", "ready"),
        (b"503", False, "success", "starting"),
        (b"500", False, "error", "unready"),
    ],
)
async def test_health_is_what_the_engine_answers(status, healthy, outcome, reason):
    async with running_queen() as queen:
        queen.engine.health = status
        (replica,) = queen.registry.replicas.all()
        assert await is_healthy(replica, DIRECT, queen.metrics) is healthy
        assert count_of(queen, outcome, reason) == 1


async def test_unreachable_replica_is_unhealthy():
    async with running_queen() as queen:
        queen.pool(url="http://127.0.0.1:1")
        (replica,) = queen.registry.replicas.all()
        assert not await is_healthy(replica, DIRECT, queen.metrics)
        assert count_of(queen, "error", "unreachable") == 1


async def test_ready_replicas_are_checked_without_tasks():
    async with running_queen() as queen, trio.open_nursery() as nursery:
        metrics = queen.metrics
        nursery.start_soon(check_forever, queen.registry, DIRECT, metrics)
        with trio.fail_after(TIMEOUT_S):
            while not count_of(queen, "success", "ready"):
                await trio.lowlevel.checkpoint()
        assert metrics.registry.get_sample_value("orchd_pool_health_check_duration_ms_count", {"pool_id": "p"}) == 1
        nursery.cancel_scope.cancel()
