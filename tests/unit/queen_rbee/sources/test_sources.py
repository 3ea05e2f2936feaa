"""What the queen knows of pools follows pool-managerd and the handoff directory, through restarts and silence."""

import json
from collections.abc import Callable
from pathlib import Path

import trio
import trio.testing

from llama_orch.bell import Bell
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.spool import SpoolReader
from queen_rbee.engines.llamacpp import LlamaCpp
from queen_rbee.metrics import Metrics
from queen_rbee.pools.registry import Registry
from queen_rbee.sources.handoffs import MISSES, HandoffSource, pools_of
from queen_rbee.sources.pool_manager import GRACE_S, Answer, NoAnswer, PoolManagerSource
from tests.unit.queen_rbee.pools.test_registry import pool


class Scripted(PoolManagerSource):
    """A pool-managerd whose answers the test gives; it notes what it was asked."""

    def play(self, answer: Callable[[int | None], Answer]) -> None:
        self.asked_after: list[int | None] = []
        self.answer = answer

    async def _ask(self, revision: int | None) -> Answer:
        self.asked_after.append(revision)
        if revision is not None:
            await trio.sleep(1)  # a long poll
        return self.answer(revision)


def checks(metrics: Metrics, reason: str, pool_id: str = "p") -> float | None:
    labels = {"pool_id": pool_id, "outcome": "success" if reason == "ready" else "error", "reason": reason}
    return metrics.registry.get_sample_value("orchd_pool_health_checks_total", labels)


def timed(metrics: Metrics, pool_id: str = "p") -> float | None:
    return metrics.registry.get_sample_value("orchd_pool_health_check_duration_ms_count", {"pool_id": pool_id})


def silent(_revision: int | None) -> Answer:
    raise NoAnswer("it does not answer")


def says(revision: int) -> Callable[[int | None], Answer]:
    return lambda _revision: Answer(pools=[pool()], revision=revision)


async def test_each_answer_is_taken_over_and_the_next_question_waits_for_a_change(autojump_clock):
    known, metrics = Registry(Bell(), {"llamacpp": LlamaCpp()}), Metrics()
    source = Scripted("http://x", None, known, metrics)
    source.play(says(7))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.sleep(2.5)
        nursery.cancel_scope.cancel()
    assert source.asked.is_set()
    assert source.asked_after[:2] == [None, 7]
    assert [found.pool_id for found in known.pools()] == ["p"]
    assert checks(metrics, "ready") == len(source.asked_after) - 1
    assert timed(metrics) == 1, "how long an answer took says nothing where it waited for a change"


async def test_a_pool_manager_that_restarts_does_not_make_its_pools_vanish_but_one_that_is_gone_does(autojump_clock):
    known = Registry(Bell(), {"llamacpp": LlamaCpp()})
    source = Scripted("http://x", None, known, Metrics())
    source.play(says(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.sleep(1.5)
        source.answer = silent
        await trio.sleep(GRACE_S - 5)
        assert known.pools()
        await trio.sleep(10)
        assert not known.pools()
        source.answer = says(2)
        await trio.sleep(5)
        assert known.pools()
        assert None in source.asked_after[2:], "after silence everything is asked for anew"
        nursery.cancel_scope.cancel()


async def test_one_that_was_never_there_counts_as_asked_so_that_tasks_are_not_held_up_for_it(autojump_clock):
    source = Scripted("http://x", None, Registry(Bell(), {"llamacpp": LlamaCpp()}), Metrics())
    source.play(silent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        with trio.fail_after(1):
            await source.asked.wait()
        nursery.cancel_scope.cancel()


def handoff(**more) -> Handoff:
    return Handoff.model_validate({"pool_id": "p", "engine_version": "1", "url": "http://127.0.0.1:9", **more})


def test_engines_of_one_pool_are_its_replicas():
    first = handoff(replica_id="r0", slots_total=2, model={"id": "m", "path": "/m", "ctx_max": 512})
    (found,) = pools_of([(first, True), (handoff(replica_id="r1"), False)])
    assert (found.state, found.ready, found.slots_total, found.slots_free) == (PoolState.READY, True, 3, 2)
    assert (found.models_available, found.ctx_max) == (["m"], 512)
    assert [(replica.replica_id, replica.ready) for replica in found.replicas] == [("r0", True), ("r1", False)]


async def healthy_engine(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """Answers every request with 200."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(lambda task_status: serve(answer, task_status))
        task_status.started(listener.socket.getsockname()[1])


async def serve(answer, task_status) -> None:
    await trio.serve_tcp(answer, 0, host="127.0.0.1", task_status=task_status)


async def test_an_announced_engine_is_used_once_it_answers_and_forgotten_when_it_is_gone(tmp_path: Path):
    known, metrics = Registry(Bell(), {"llamacpp": LlamaCpp()}), Metrics()
    source = HandoffSource(SpoolReader(tmp_path, moves_bad=False), known, metrics, Bell(), 60.0)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(healthy_engine)
        file = tmp_path / "p-r0.json"
        file.write_text(json.dumps({"pool_id": "p", "engine_version": "1", "url": f"http://127.0.0.1:{port}"}))
        (tmp_path / "bad.json").write_text("[]")
        await source.look()
        assert [found.ready for found in known.pools()] == [True]
        assert (tmp_path / "bad.json").exists(), "bad files are pool-managerd's to move"
        file.unlink()
        await source.look()
        assert [found.ready for found in known.pools()] == [True], "a taken file may go; its engine is still there"
        nursery.cancel_scope.cancel()
    for _ in range(MISSES - 1):
        await source.look()
        assert [found.ready for found in known.pools()] == [False]
    await source.look()
    assert known.pools() == []
    assert (checks(metrics, "ready"), checks(metrics, "unreachable"), timed(metrics)) == (2, MISSES, 2 + MISSES)
