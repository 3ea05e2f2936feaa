"""Tasks that lose their replica: they continue elsewhere before the first token, and fail after it. Also circuits."""

import pytest
import trio
import trio.lowlevel
import trio.testing

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.pools import ReplicaStatus
from llama_orch.contracts.tasks import TaskState
from llama_orch.telemetry.correlation import peer
from queen_rbee.dispatch.circuits import FAULTS_TO_OPEN
from queen_rbee.dispatch.failures import FailureKind, node_relay_failure
from queen_rbee.parts import POOL_WAIT_S
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import (
    TIMEOUT_S,
    QueenCore,
    end_events,
    running_queen,
    wait_for_first_token,
    wait_for_free_slots,
)

UNREACHABLE = "http://127.0.0.1:1"


def add_node(queen: QueenCore, node_id: str, url: str, *, slots: int = 2) -> None:
    """Add pool `p` on a node whose relay is at `url`."""
    replica = ReplicaStatus(replica_id=node_id, url=url, ready=True, slots_total=slots, slots_free=slots)
    pool = queen.status(node_id=node_id, replicas=[replica])
    queen.registry.update(f"node {node_id}", 0, [pool])


def remove_local_pool(queen: QueenCore) -> None:
    queen.registry.update("p", 0, [])


async def wait_until_sent(queen: QueenCore, task: Task) -> None:
    """Wait until the engine has the request."""
    with trio.fail_after(TIMEOUT_S):
        while task.state is TaskState.QUEUED or not queen.engine.connected:
            await trio.lowlevel.checkpoint()


async def test_unstarted_task_moves_when_its_node_is_lost():
    async with running_queen() as queen:
        remove_local_pool(queen)
        add_node(queen, "n1", queen.engine.url)
        task = queen.submit("silence")
        await wait_until_sent(queen, task)
        add_node(queen, "n2", queen.engine.url)
        assert queen.runs.displace([("p", "n1")], "n1 is offline") == 1
        with trio.fail_after(TIMEOUT_S):
            while task.place.replica_id != "n2":
                await task.log.wait_beyond(task.log.last_id)
        queen.dispatcher.cancel(task)
        await wait_for_free_slots(queen)


async def test_displaced_task_without_replica_is_queued_first():
    async with running_queen() as queen:
        remove_local_pool(queen)
        add_node(queen, "n1", queen.engine.url, slots=1)
        lost = queen.submit("silence")
        await wait_until_sent(queen, lost)
        other = queen.submit()
        queen.registry.forget("node n1")
        queen.runs.displace([("p", "n1")], "n1 is offline")
        with trio.fail_after(TIMEOUT_S):
            while lost.state is not TaskState.QUEUED:
                await lost.log.wait_beyond(lost.log.last_id)
        assert queen.queue.position(lost) == 0
        assert queen.queue.position(other) == 1
        queen.dispatcher.cancel(lost)
        add_node(queen, "n2", queen.engine.url)
        assert (await end_events(other))[-1] == "end"
        await wait_for_free_slots(queen)


async def test_started_task_fails_when_its_node_is_lost():
    async with running_queen() as queen:
        remove_local_pool(queen)
        add_node(queen, "n1", queen.engine.url)
        add_node(queen, "n2", UNREACHABLE)
        task = queen.submit("stall")
        await wait_for_first_token(task)
        queen.runs.displace([("p", task.place.replica_id or "")], "the node is offline")
        assert (await end_events(task))[-1] == "error"
        assert task.error
        assert (task.error.code, task.error.retriable) == (ErrorCode.WORKER_RESET, True)
        await wait_for_free_slots(queen)


async def test_unreachable_node_is_left_for_another():
    async with running_queen() as queen:
        remove_local_pool(queen)
        add_node(queen, "n1", UNREACHABLE)
        add_node(queen, "n2", queen.engine.url)
        tasks = [queen.submit() for _ in range(4)]
        assert [(await end_events(task))[-1] for task in tasks] == ["end"] * 4
        assert {task.place.replica_id for task in tasks} == {"n2"}


async def test_task_waits_for_its_only_unreachable_node():
    async with running_queen() as queen:
        remove_local_pool(queen)
        add_node(queen, "n1", UNREACHABLE)
        task = queen.submit()
        with trio.fail_after(TIMEOUT_S):
            while queen.circuits.next_check == float("inf"):
                await queen.registry.wait_for_change()
        add_node(queen, "n1", queen.engine.url)
        assert (await end_events(task))[-1] == "end"


async def test_task_that_breaks_every_node_is_tried_a_few_times():
    async with running_queen() as queen:
        remove_local_pool(queen)
        for number in range(6):
            add_node(queen, f"n{number}", queen.engine.url)
        task = queen.submit("vanish")
        assert (await end_events(task))[-1] == "error"
        assert queen.engine.served <= 3
        await wait_for_free_slots(queen)


def submit_failing(queen: QueenCore, client: str, prompt: str) -> Task:
    """Submit a task of `client` that the engine answers with 500."""
    peer.set(client)
    return queen.submit(f"break {prompt}")


async def open_circuit(queen: QueenCore) -> None:
    """Open the circuit of `p` by failures of different clients' requests."""
    for number in range(FAULTS_TO_OPEN):
        await end_events(submit_failing(queen, f"192.0.2.{number}", str(number)))


def circuit_of(queen: QueenCore) -> str:
    (candidate,) = queen.registry.replicas.all()
    return candidate.circuit


async def test_failures_of_different_clients_open_the_circuit():
    async with running_queen() as queen:
        await open_circuit(queen)
        assert circuit_of(queen) == "open"
        assert [pool.circuit for pool in queen.registry.pools()] == ["open"]
        waiting = queen.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert waiting.state is TaskState.QUEUED
        assert (await end_events(waiting))[-1] == "end", "the health check did not close the circuit"
        assert circuit_of(queen) == "closed"


async def test_one_client_cannot_keep_a_pool_from_others():
    async with running_queen() as queen:
        for number in range(4 * FAULTS_TO_OPEN):
            await end_events(submit_failing(queen, "192.0.2.1", str(number)))
            peer.set("192.0.2.2")
            good = queen.submit()
            assert (await end_events(good))[-1] == "end"
            assert circuit_of(queen) == "closed"
        assert queen.engine.checks >= 1


async def test_engine_message_does_not_reach_the_journal(caplog):
    async with running_queen() as queen:
        await open_circuit(queen)
        assert circuit_of(queen) == "open"
    assert "gets no tasks until it passes a health check" in caplog.text
    assert "oops" not in caplog.text


async def test_same_request_of_many_clients_opens_no_circuit():
    async with running_queen() as queen:
        for number in range(4 * FAULTS_TO_OPEN):
            await end_events(submit_failing(queen, f"192.0.2.{number}", "the same words"))
        assert circuit_of(queen) == "closed"


async def test_failed_health_check_opens_the_circuit():
    async with running_queen() as queen:
        queen.engine.health = b"500"
        await end_events(submit_failing(queen, "192.0.2.1", "x"))
        with trio.fail_after(TIMEOUT_S):
            while circuit_of(queen) == "closed":
                await trio.lowlevel.checkpoint()
        waiting = queen.submit()
        queen.engine.health = b"200"
        assert (await end_events(waiting))[-1] == "end"


async def test_circuit_closes_when_replica_becomes_ready_again():
    async with running_queen() as queen:
        await open_circuit(queen)
        queen.pool(ready=False)
        queen.pool()
        (candidate,) = queen.registry.replicas.all()
        assert (candidate.circuit, candidate.open) == ("closed", True)


async def test_removed_replica_leaves_no_circuit_and_no_series():
    async with running_queen() as queen:
        await open_circuit(queen)
        series = queen.metrics.registry.get_sample_value
        labels = {"pool_id": "p", "replica_id": "r0"}
        before = series("orchd_circuit_open", labels)
        remove_local_pool(queen)
        assert before == 1
        with trio.fail_after(TIMEOUT_S):
            while series("orchd_circuit_open", labels) is not None:
                await trio.lowlevel.checkpoint()
        assert queen.circuits.next_check == float("inf")


async def test_refusals_and_cancels_open_no_circuit():
    async with running_queen() as queen:
        for _ in range(2 * FAULTS_TO_OPEN):
            await end_events(queen.submit("refuse"))
            task = queen.submit("stall")
            await wait_for_first_token(task)
            queen.dispatcher.cancel(task)
            await wait_until_no_lease(queen)
        (candidate,) = queen.registry.replicas.all()
        assert candidate.circuit == "closed"


async def wait_until_no_lease(queen: QueenCore) -> None:
    with trio.fail_after(TIMEOUT_S):
        while queen.registry.leased:
            await queen.registry.wait_for_change()


async def wait_until_displaced(task: Task) -> None:
    """Wait until `task` has lost its replica; assert that it did not fail."""
    with trio.fail_after(TIMEOUT_S):
        while task.place.displaced_at is None and not task.log.closed:
            await task.log.wait_beyond(task.log.last_id)
    assert task.error is None


@pytest.mark.parametrize("outage", ["vanish", "loading", "bad gateway"])
async def test_task_waits_while_its_only_engine_restarts(outage):
    async with running_queen() as queen:
        queen.engine.outage = outage
        task = queen.submit()
        await wait_until_displaced(task)
        queen.engine.outage = ""
        assert (await end_events(task))[-1] == "end"
        await wait_for_free_slots(queen)


async def test_task_waits_while_its_only_engine_is_gone():
    async with running_queen() as queen:
        url, queen.engine.url = queen.engine.url, UNREACHABLE
        queen.pool()
        task = queen.submit()
        await wait_until_displaced(task)
        assert not task.state.final
        queen.engine.url = url
        queen.pool()
        assert (await end_events(task))[-1] == "end"
        await wait_for_free_slots(queen)


async def test_task_waiting_for_its_engine_ends_at_deadline():
    async with running_queen() as queen:
        queen.engine.url = UNREACHABLE
        queen.pool()
        task = queen.submit(deadline_ms=100)
        assert (await end_events(task))[-1] == "error"
        assert task.error
        assert task.error.code == ErrorCode.DEADLINE_UNMET


async def test_task_waiting_for_its_engine_is_given_up(autojump_clock):
    async with running_queen() as queen:
        queen.engine.url = UNREACHABLE
        queen.pool()
        task = queen.submit()
        with trio.fail_after(2 * POOL_WAIT_S):
            while not task.log.closed:
                await task.log.wait_beyond(task.log.last_id)
        assert task.error
        assert task.error.code in (ErrorCode.POOL_UNREADY, ErrorCode.WORKER_RESET)
        assert task.error.retriable
        assert task.measurements.ended_at
        assert task.measurements.ended_at - task.measurements.submitted_at == pytest.approx(POOL_WAIT_S, abs=10.0)
        await wait_for_free_slots(queen)


def test_node_relay_failures_allow_another_attempt():
    refused = node_relay_failure("refused", 503, b'{"code":"POOL_UNREADY","message":"draining"}')
    assert (refused.kind, str(refused)) == (FailureKind.UNAVAILABLE, "draining")
    assert node_relay_failure("refused", 502, b"").kind is FailureKind.UNAVAILABLE
    assert node_relay_failure("refused", 404, b"").kind is FailureKind.UNAVAILABLE
    broken = node_relay_failure("broken", 502, b"{}")
    assert (broken.kind, broken.retriable) == (FailureKind.CONNECTION_LOST, True)


def test_request_refused_by_node_relay_blames_nobody():
    too_large = node_relay_failure("refused", 413, b"")
    assert (too_large.code, too_large.blame, too_large.next_step) == (ErrorCode.INVALID_PARAMS, "nobody", "end")
