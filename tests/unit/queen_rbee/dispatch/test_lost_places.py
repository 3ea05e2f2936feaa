"""Tasks whose place is lost under them: elsewhere before the first token, WORKER_RESET after it; and circuits."""

import pytest
import trio
import trio.lowlevel
import trio.testing

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.pools import ReplicaStatus
from llama_orch.contracts.tasks import TaskState
from llama_orch.telemetry.correlation import peer
from queen_rbee.dispatch.circuits import FAULTS
from queen_rbee.dispatch.dispatcher import POOL_WAIT_S
from queen_rbee.dispatch.failure import relay_failure
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import SOON_S, Queen, ended, first_token, running, slots_are_free

NOBODY = "http://127.0.0.1:1"


def on_node(queen: Queen, node_id: str, url: str, *, slots: int = 2) -> None:
    """Pool `p` on a node, whose relay is at `url`."""
    replica = ReplicaStatus(replica_id=node_id, url=url, ready=True, slots_total=slots, slots_free=slots)
    pool = queen.status(node_id=node_id, replicas=[replica])
    queen.dispatcher.registry.update(f"node {node_id}", 0, [pool])


def without_home(queen: Queen) -> None:
    queen.dispatcher.registry.update("p", 0, [])


async def asked(queen: Queen, task: Task) -> None:
    """Return when the engine has been asked for `task`."""
    with trio.fail_after(SOON_S):
        while task.state is TaskState.QUEUED or not queen.engine.connected:
            await trio.lowlevel.checkpoint()


async def test_a_task_of_which_nothing_has_come_goes_elsewhere_when_its_node_is_lost():
    async with running() as queen:
        without_home(queen)
        on_node(queen, "n1", queen.engine.url)
        task = queen.submit("silence")
        await asked(queen, task)
        on_node(queen, "n2", queen.engine.url)
        assert queen.dispatcher.runs.take_place([("p", "n1")], "n1 is offline") == 1
        with trio.fail_after(SOON_S):
            while task.replica_id != "n2":
                await task.log.wait_beyond(task.log.last_id)
        queen.dispatcher.cancel(task)
        await slots_are_free(queen)


async def test_with_no_other_place_it_waits_before_all_others_and_runs_when_there_is_one():
    async with running() as queen:
        without_home(queen)
        on_node(queen, "n1", queen.engine.url, slots=1)
        lost = queen.submit("silence")
        await asked(queen, lost)
        other = queen.submit()
        queen.dispatcher.registry.forget("node n1")
        queen.dispatcher.runs.take_place([("p", "n1")], "n1 is offline")
        with trio.fail_after(SOON_S):
            while lost.state is not TaskState.QUEUED:
                await lost.log.wait_beyond(lost.log.last_id)
        assert queen.dispatcher.queue.position(lost) == 0
        assert queen.dispatcher.queue.position(other) == 1
        queen.dispatcher.cancel(lost)
        on_node(queen, "n2", queen.engine.url)
        assert (await ended(other))[-1] == "end"
        await slots_are_free(queen)


async def test_a_task_of_which_something_has_come_ends_with_worker_reset_retriable():
    async with running() as queen:
        without_home(queen)
        on_node(queen, "n1", queen.engine.url)
        on_node(queen, "n2", NOBODY)
        task = queen.submit("stall")
        await first_token(task)
        queen.dispatcher.runs.take_place([("p", task.replica_id or "")], "the node is offline")
        assert (await ended(task))[-1] == "error"
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.WORKER_RESET, True)
        await slots_are_free(queen)


async def test_a_node_that_breaks_the_connection_before_the_first_token_is_left_for_another():
    async with running() as queen:
        without_home(queen)
        on_node(queen, "n1", NOBODY)
        on_node(queen, "n2", queen.engine.url)
        tasks = [queen.submit() for _ in range(4)]
        assert [(await ended(task))[-1] for task in tasks] == ["end"] * 4
        assert {task.replica_id for task in tasks} == {"n2"}


async def test_a_task_whose_only_node_cannot_be_reached_waits_until_it_can():
    async with running() as queen:
        without_home(queen)
        on_node(queen, "n1", NOBODY)
        task = queen.submit()
        with trio.fail_after(SOON_S):
            while queen.dispatcher.circuits.next_check == float("inf"):
                await queen.dispatcher.registry.wait_for_change()
        on_node(queen, "n1", queen.engine.url)
        assert (await ended(task))[-1] == "end"


async def test_a_task_that_breaks_every_node_is_not_tried_on_and_on():
    async with running() as queen:
        without_home(queen)
        for number in range(6):
            on_node(queen, f"n{number}", queen.engine.url)
        task = queen.submit("vanish")
        assert (await ended(task))[-1] == "error"
        assert queen.engine.served <= 3
        await slots_are_free(queen)


def fails_for(queen: Queen, client: str, prompt: str) -> Task:
    """A task of `client` that the engine will answer with 500."""
    peer.set(client)
    return queen.submit(f"break {prompt}")


async def opened(queen: Queen) -> None:
    """The circuit of `p` is open by failures of different clients' requests."""
    for number in range(FAULTS):
        await ended(fails_for(queen, f"192.0.2.{number}", str(number)))


def circuit_of(queen: Queen) -> str:
    (candidate,) = queen.dispatcher.registry.replicas.all()
    return candidate.circuit


async def test_failures_of_different_clients_open_the_circuit():
    async with running() as queen:
        await opened(queen)
        assert circuit_of(queen) == "open"
        assert [pool.circuit for pool in queen.dispatcher.registry.pools()] == ["open"]
        waiting = queen.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert waiting.state is TaskState.QUEUED
        assert (await ended(waiting))[-1] == "end", "the health check has closed the circuit"
        assert circuit_of(queen) == "closed"


async def test_one_client_cannot_keep_a_pool_from_others():
    async with running() as queen:
        for number in range(4 * FAULTS):
            await ended(fails_for(queen, "192.0.2.1", str(number)))
            peer.set("192.0.2.2")
            good = queen.submit()
            assert (await ended(good))[-1] == "end"
            assert circuit_of(queen) == "closed"
        assert queen.engine.checks >= 1


async def test_words_of_an_engine_do_not_reach_the_journal(caplog):
    async with running() as queen:
        await opened(queen)
        assert circuit_of(queen) == "open"
    assert "gets no tasks until it passes a health check" in caplog.text
    assert "oops" not in caplog.text


async def test_same_request_of_many_clients_opens_no_circuit():
    async with running() as queen:
        for number in range(4 * FAULTS):
            await ended(fails_for(queen, f"192.0.2.{number}", "the same words"))
        assert circuit_of(queen) == "closed"


async def test_failed_health_check_opens_the_circuit():
    async with running() as queen:
        queen.engine.health = b"500"
        await ended(fails_for(queen, "192.0.2.1", "x"))
        with trio.fail_after(SOON_S):
            while circuit_of(queen) == "closed":
                await trio.lowlevel.checkpoint()
        waiting = queen.submit()
        queen.engine.health = b"200"
        assert (await ended(waiting))[-1] == "end"


async def test_a_replica_that_becomes_ready_anew_is_not_held_to_what_it_was():
    async with running() as queen:
        await opened(queen)
        queen.pool(ready=False)
        queen.pool()
        (candidate,) = queen.dispatcher.registry.replicas.all()
        assert (candidate.circuit, candidate.open) == ("closed", True)


async def test_of_a_replica_that_is_gone_neither_circuit_nor_series_remain():
    async with running() as queen:
        await opened(queen)
        series = queen.dispatcher.metrics.registry.get_sample_value
        labels = {"pool_id": "p", "replica_id": "r0"}
        before = series("orchd_circuit_open", labels)
        without_home(queen)
        assert before == 1
        with trio.fail_after(SOON_S):
            while series("orchd_circuit_open", labels) is not None:
                await trio.lowlevel.checkpoint()
        assert queen.dispatcher.circuits.next_check == float("inf")


async def test_refused_requests_and_clients_that_leave_open_no_circuit():
    async with running() as queen:
        for _ in range(2 * FAULTS):
            await ended(queen.submit("refuse"))
            task = queen.submit("stall")
            await first_token(task)
            queen.dispatcher.cancel(task)
            await slots_are_quiet(queen)
        (candidate,) = queen.dispatcher.registry.replicas.all()
        assert candidate.circuit == "closed"


async def slots_are_quiet(queen: Queen) -> None:
    with trio.fail_after(SOON_S):
        while queen.dispatcher.registry.leased:
            await queen.dispatcher.registry.wait_for_change()


async def displaced(task: Task) -> None:
    """Return once `task` has lost its place and has not failed for that."""
    with trio.fail_after(SOON_S):
        while task.displaced_at is None and not task.log.closed:
            await task.log.wait_beyond(task.log.last_id)
    assert task.error is None


@pytest.mark.parametrize("mood", ["vanish", "loading", "bad gateway"])
async def test_task_waits_while_its_only_engine_restarts(mood):
    """In HOME_PROFILE, where the queen speaks to the engine itself."""
    async with running() as queen:
        queen.engine.mood = mood
        task = queen.submit()
        await displaced(task)
        queen.engine.mood = ""
        assert (await ended(task))[-1] == "end"
        await slots_are_free(queen)


async def test_task_waits_while_its_only_engine_is_gone():
    async with running() as queen:
        url, queen.engine.url = queen.engine.url, NOBODY
        queen.pool()
        task = queen.submit()
        await displaced(task)
        assert not task.state.final
        queen.engine.url = url
        queen.pool()
        assert (await ended(task))[-1] == "end"
        await slots_are_free(queen)


async def test_task_that_waits_for_its_engine_ends_at_its_deadline():
    async with running() as queen:
        queen.engine.url = NOBODY
        queen.pool()
        task = queen.submit(deadline_ms=100)
        assert (await ended(task))[-1] == "error"
        assert task.error
        assert task.error.code == ErrorCode.DEADLINE_UNMET


async def test_task_that_waits_for_its_engine_is_given_up_in_time(autojump_clock):
    async with running() as queen:
        queen.engine.url = NOBODY
        queen.pool()
        task = queen.submit()
        with trio.fail_after(2 * POOL_WAIT_S):
            while not task.log.closed:
                await task.log.wait_beyond(task.log.last_id)
        assert task.error
        assert task.error.code in (ErrorCode.POOL_UNREADY, ErrorCode.WORKER_RESET)
        assert task.error.retriable
        assert task.ended_at
        assert task.ended_at - task.submitted_at == pytest.approx(POOL_WAIT_S, abs=10.0)
        await slots_are_free(queen)


def test_relay_that_did_not_reach_the_engine_lets_the_task_go_on():
    refused = relay_failure("refused", 503, b'{"code":"POOL_UNREADY","message":"draining"}')
    assert (refused.elsewhere, refused.blame, str(refused)) == (True, "replica", "draining")
    assert relay_failure("refused", 502, b"").blame == "replica"
    assert relay_failure("refused", 404, b"").blame == "replica"
    broken = relay_failure("broken", 502, b"{}")
    assert (broken.elsewhere, broken.lost, broken.blame, broken.retriable) == (False, True, "unsure", True)


def test_request_that_the_relay_refuses_counts_against_nobody():
    too_large = relay_failure("refused", 413, b"")
    assert (too_large.code, too_large.blame, too_large.elsewhere) == (ErrorCode.INVALID_PARAMS, "nobody", False)
