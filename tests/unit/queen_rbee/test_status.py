"""The status line and the metrics follow nodes and pools; series of removed pools are removed."""

from functools import partial

import trio
from prometheus_client import generate_latest
from trio.testing import MockClock

from llama_orch.service.notify import Notifier
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.shared.in_process import StoredNodes
from queen_rbee.status import INTERVAL_S, keep_status
from tests.unit.queen_rbee.fleet_rig import CHECK_S, TIMEOUT_MS, heartbeat, registration
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen, end_events, running_queen, wait_for_free_slots
from tests.unit.queen_rbee.scripted_engine import ScriptedEngine

POOL, REPLICA = 'pool_id="p"', 'replica_id="r0"'


class RecordingNotifier(Notifier):
    """Records status lines instead of sending them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def status(self, text: str) -> None:
        self.lines.append(text)


def series_of(queen: QueenCore, label: str) -> set[str]:
    """Return the names of all series with this label."""
    text = generate_latest(queen.metrics.registry).decode()
    return {line.partition("{")[0] for line in text.splitlines() if label in line}


async def test_status_line_and_series_follow_nodes(autojump_clock: MockClock) -> None:
    queen, notifier = build_queen(ScriptedEngine()), RecordingNotifier()
    fleet = Fleet(queen.registry, StoredNodes(MemoryStore()), queen.metrics, queen.runs.displace, TIMEOUT_MS, CHECK_S)
    loop = partial(keep_status, queen.queue, queen.registry, queen.accounting, queen.metrics, fleet, notifier)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop)
        await trio.sleep(INTERVAL_S / 2)
        await fleet.register(registration(), "192.0.2.1")
        fleet.heartbeat("n1", heartbeat())
        await trio.sleep(INTERVAL_S)
        assert {"orchd_pools_available", "orchd_pool_health_checks_total"} <= series_of(queen, POOL)
        await trio.sleep(5 * INTERVAL_S)
        await fleet.deregister("n1", "stopped")
        await trio.sleep(INTERVAL_S)
        assert series_of(queen, POOL) == set()
        nursery.cancel_scope.cancel()
    assert notifier.lines == [
        "0 pools ready, 0 queued, 0 running",
        "1 of 1 nodes online, 1 pool ready, 0 queued, 0 running",
        "0 pools ready, 0 queued, 0 running",
    ]


async def test_series_of_tasks_are_removed_with_their_pool() -> None:
    async with running_queen() as queen:
        task = queen.submit()
        await end_events(task)
        await wait_for_free_slots(queen)
        metrics = queen.metrics
        names = {"tasks_started_total", "tokens_out_total", "orchd_tasks_dispatched_total", "latency_decode_ms_count"}
        assert names <= series_of(queen, POOL)
        metrics.ready_pools({"p": 0})
        assert names <= series_of(queen, POOL), "the pool exists although it is not ready"
        metrics.forget_node("r0")
        assert series_of(queen, REPLICA) == set()
        assert "orchd_tasks_dispatched_total" in series_of(queen, POOL), "other nodes may have a pool with the same id"
        metrics.ready_pools({})
        assert series_of(queen, POOL) == set()
