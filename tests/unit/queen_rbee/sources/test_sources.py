"""Sources keep the registry in sync with pool-managerd and the handoff directory, through restarts and outages."""

import json
from collections.abc import Callable
from pathlib import Path

import trio
import trio.testing

from llama_orch.bell import Bell
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.engines.wire.llamacpp import LlamaCpp
from llama_orch.spool import SpoolReader
from queen_rbee.metrics import Metrics
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.sources.handoffs import MAX_MISSES, HandoffSource, pools_of
from queen_rbee.sources.pool_manager import GRACE_S, PollFailure, PoolManagerSource, PoolsAnswer
from tests.unit.queen_rbee.pools.test_registry import pool


class ScriptedSource(PoolManagerSource):
    """A source with scripted answers; it records the revision of each poll."""

    def play(self, answer: Callable[[int | None], PoolsAnswer]) -> None:
        self.revisions: list[int | None] = []
        self.answer = answer

    async def _poll(self, revision: int | None) -> PoolsAnswer:
        self.revisions.append(revision)
        if revision is not None:
            await trio.sleep(1)  # a long poll
        return self.answer(revision)


def checks(metrics: Metrics, reason: str, pool_id: str = "p") -> float | None:
    labels = {"pool_id": pool_id, "outcome": "success" if reason == "ready" else "error", "reason": reason}
    return metrics.registry.get_sample_value("orchd_pool_health_checks_total", labels)


def timed(metrics: Metrics, pool_id: str = "p") -> float | None:
    return metrics.registry.get_sample_value("orchd_pool_health_check_duration_ms_count", {"pool_id": pool_id})


def failing(_revision: int | None) -> PoolsAnswer:
    raise PollFailure("status 503")


def answers(revision: int) -> Callable[[int | None], PoolsAnswer]:
    return lambda _revision: PoolsAnswer(pools=[pool()], revision=revision)


async def test_answers_update_registry_by_long_polls(autojump_clock):
    known, metrics = PoolRegistry(Bell(), {"llamacpp": LlamaCpp()}), Metrics()
    source = ScriptedSource("http://x", None, known, metrics)
    source.play(answers(7))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.sleep(2.5)
        nursery.cancel_scope.cancel()
    assert source.polled.is_set()
    assert source.revisions[:2] == [None, 7]
    assert [found.pool_id for found in known.pools()] == ["p"]
    assert checks(metrics, "ready") == len(source.revisions) - 1
    assert timed(metrics) == 1, "the duration of a long poll is not recorded"


async def test_pools_survive_outage_shorter_than_grace_period(autojump_clock):
    known = PoolRegistry(Bell(), {"llamacpp": LlamaCpp()})
    source = ScriptedSource("http://x", None, known, Metrics())
    source.play(answers(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.sleep(1.5)
        source.answer = failing
        await trio.sleep(GRACE_S - 5)
        assert known.pools()
        await trio.sleep(10)
        assert not known.pools()
        source.answer = answers(2)
        await trio.sleep(5)
        assert known.pools()
        assert None in source.revisions[2:], "the first poll after an outage is complete"
        nursery.cancel_scope.cancel()


async def test_failed_first_poll_counts_as_polled(autojump_clock):
    source = ScriptedSource("http://x", None, PoolRegistry(Bell(), {"llamacpp": LlamaCpp()}), Metrics())
    source.play(failing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        with trio.fail_after(1):
            await source.polled.wait()
        nursery.cancel_scope.cancel()


def handoff(**more) -> Handoff:
    return Handoff.model_validate({"pool_id": "p", "engine_version": "1", "url": "http://127.0.0.1:9", **more})


def test_engines_of_pool_become_replicas():
    first = handoff(replica_id="r0", slots_total=2, model={"id": "m", "path": "/m", "ctx_max": 512})
    (found,) = pools_of([(first, True), (handoff(replica_id="r1"), False)])
    assert (found.state, found.ready, found.slots_total, found.slots_free) == (PoolState.READY, True, 3, 2)
    assert (found.models_available, found.ctx_max) == (["m"], 512)
    assert [(replica.replica_id, replica.ready) for replica in found.replicas] == [("r0", True), ("r1", False)]


async def healthy_engine(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """Run an engine that answers every request with 200."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(lambda task_status: serve(answer, task_status))
        task_status.started(listener.socket.getsockname()[1])


async def serve(answer, task_status) -> None:
    await trio.serve_tcp(answer, 0, host="127.0.0.1", task_status=task_status)


async def test_announced_engine_follows_its_health(tmp_path: Path):
    known, metrics = PoolRegistry(Bell(), {"llamacpp": LlamaCpp()}), Metrics()
    source = HandoffSource(SpoolReader(tmp_path, moves_bad=False), known, metrics, Bell(), 60.0)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(healthy_engine)
        file = tmp_path / "p-r0.json"
        file.write_text(json.dumps({"pool_id": "p", "engine_version": "1", "url": f"http://127.0.0.1:{port}"}))
        (tmp_path / "bad.json").write_text("[]")
        await source.scan()
        assert [found.ready for found in known.pools()] == [True]
        assert (tmp_path / "bad.json").exists(), "only pool-managerd moves invalid files"
        file.unlink()
        await source.scan()
        assert [found.ready for found in known.pools()] == [True], "the engine outlives its file"
        nursery.cancel_scope.cancel()
    for _ in range(MAX_MISSES - 1):
        await source.scan()
        assert [found.ready for found in known.pools()] == [False]
    await source.scan()
    assert known.pools() == []
    assert (checks(metrics, "ready"), checks(metrics, "unreachable"), timed(metrics)) == (2, MAX_MISSES, 2 + MAX_MISSES)
