"""A cluster of queen-rbee and three nodes during network failures, kills and restarts. The last test ends a node."""

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import cycle, islice
from pathlib import Path
from uuid import uuid4

import pytest

from llama_orch.telemetry.events import queen as events
from tests.engines.llama_server import Archive
from tests.system.conftest import ONE_THREAD, SLOW
from tests.system.lab.client import Client, Outcome, complete, outcome, submit
from tests.system.lab.clock import with_own_clock
from tests.system.lab.cluster import (
    ENGINE,
    MANAGER,
    NODE_TIMEOUT_S,
    STALE_CHECK_S,
    Cluster,
    Node,
    running_cluster,
)
from tests.system.lab.load import under_load
from tests.system.lab.machine import Machine, Pool
from tests.system.lab.waiting import until

QUEEN = "queen-rbee.service"
GRACE_S = 3
"""Time that a busy machine may need to report a change."""
OFFLINE_WITHIN_S = NODE_TIMEOUT_S + STALE_CHECK_S + GRACE_S
RESTARTS = 6
POOL = Pool("default", SLOW, extra=ONE_THREAD)
LONG_ANSWER = 200
"""Tokens of a task that must still run when its node is disturbed."""
TASKS_ABOVE_CAPACITY = 5
"""Number of tasks that is more than one node can run at once."""
JUMPS_S = (3600, -86400)
"""Offsets to which clocks are set in turn: ahead and behind."""

Report = Callable[[str], None]


@pytest.fixture(scope="module")
def booted_cluster(deb: Path, llama_server_tar: Archive, models: dict[str, Path]) -> Iterator[Cluster]:
    """The module's cluster."""
    with running_cluster(deb, llama_server_tar, models, POOL) as running:
        yield running


def _repair(node: Node) -> None:
    """Repair the cable of a node, unless its machine was powered off."""
    if Path(f"/proc/{node.cable.machine}").exists():
        node.cable.repair()


@pytest.fixture
def cluster(booted_cluster: Cluster, undo: Callable[..., object]) -> Cluster:
    """The cluster with all nodes serving. Cables are repaired when the test ends."""
    booted_cluster.wait_until_serving()
    for node in booted_cluster.nodes:
        undo(_repair, node)
    return booted_cluster


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Print a measurement in spite of output capture."""

    def show(words: str) -> None:
        with capsys.disabled():
            print(f"\n  {words}")

    return show


def ask(cluster: Cluster) -> str | None:
    """A request for `under_load`: run a short task, which must succeed."""
    done = complete(cluster.queen, max_tokens=4)
    return None if done.last.name == "end" else f"{done.last}"


def ask_unlucky(cluster: Cluster) -> str | None:
    """Like `ask`, but the task may lose its node after its first token."""
    done = complete(cluster.queen, max_tokens=4)
    return None if done.last.name == "end" or was_cut_short(done) else f"{done.tokens} tokens, {done.last}"


def was_cut_short(done: Outcome) -> bool:
    """Whether the task lost its node after its first token. A task without tokens must run elsewhere instead."""
    data = done.last.data
    return bool(done.last.name == "error" and data["code"] == "WORKER_RESET" and data["retriable"] and done.tokens)


def places(cluster: Cluster, number: int = 9) -> set[str]:
    """Run a number of short tasks and return the ids of the nodes that they ran on."""
    tasks = [submit(cluster.queen, max_tokens=2) for _task in range(number)]
    assert {outcome(cluster.queen, task_id).last.name for task_id in tasks} == {"end"}
    return {cluster.node_of(task_id) for task_id in tasks}


def wait_until_all_are_used(cluster: Cluster) -> None:
    """Wait until tasks are placed on every node. Raises TimeoutError."""
    ids = {node.id for node in cluster.nodes}
    until(lambda: places(cluster) == ids, "tasks on every node", 30, cluster.head.recent)


def submit_long_tasks(cluster: Cluster, number: int) -> tuple[list[str], Node]:
    """Submit long tasks, wait for the first token of the first one, and return the tasks and the node of the first."""
    tasks = [submit(cluster.queen, max_tokens=LONG_ANSWER) for _task in range(number)]
    assert next(event for event in cluster.queen.events(f"/v2/tasks/{tasks[0]}/events") if event.name == "token")
    where = cluster.node_of(tasks[0])
    return tasks, next(node for node in cluster.nodes if node.id == where)


def lines(machine: Machine, unit: str, word: str) -> list[str]:
    """Return the output of `journalctl -u UNIT | grep WORD`."""
    words = f"journalctl --no-pager -u {unit} | grep {word} || true"
    return machine.container.check("sh", "-c", words).splitlines()


def test_all_nodes_appear_online_with_their_pools_ready(cluster: Cluster) -> None:
    answer = cluster.queen.get("/v2/nodes").json
    assert answer["count"] == len(answer["nodes"]) == 3
    for node in cluster.nodes:
        listed = cluster.listed()[node.id]
        assert (listed["status"], listed["address"]) == ("online", node.address)
        assert [(pool["pool_id"], pool["ready"], pool["draining"]) for pool in listed["pools"]] == [
            (POOL.id, True, False)
        ]
    assert len({listed["machine_id"] for listed in cluster.listed().values()}) == 3
    assert Client(cluster.head.container).get("/v2/nodes").status == 401, "the list needs a token"


def test_tasks_are_spread_over_all_nodes(cluster: Cluster) -> None:
    assert places(cluster) == {node.id for node in cluster.nodes}


def test_node_with_wrong_token_is_refused_and_logged(cluster: Cluster, undo: Callable[..., object]) -> None:
    node, wrong = cluster.nodes[2], secrets.token_hex(32)
    fingerprint = hashlib.sha256(wrong.encode()).hexdigest()[:6]
    undo(node.machine.systemctl, "restart", MANAGER)
    undo(node.set_token, cluster.token)
    node.set_token(wrong)
    node.machine.systemctl("restart", MANAGER)

    def queen_messages() -> list[str]:
        return [line for line in lines(cluster.head, "queen-rbee", "token_fp6") if fingerprint in line]

    def node_messages() -> list[str]:
        return [line for line in lines(node.machine, "pool-managerd", "registration") if "refused" in line]

    until(queen_messages, "queen-rbee to log the fingerprint of the wrong token", explain=cluster.head.recent)
    until(node_messages, "the node to log that it was refused", explain=node.machine.recent)
    assert cluster.status(node) in ("gone", "offline")
    assert places(cluster) == {other.id for other in cluster.nodes[:2]}
    for machine in (cluster.head, node.machine):
        assert wrong not in machine.container.check("journalctl", "--no-pager", "--output=export")


def test_duplicate_node_id_is_refused_with_both_addresses(cluster: Cluster, undo: Callable[..., object]) -> None:
    first, _, second = cluster.nodes
    undo(second.machine.systemctl, "restart", MANAGER)
    undo(second.rename, second.id)
    second.rename(first.id)
    second.machine.systemctl("restart", MANAGER)

    def both_addresses() -> list[str]:
        found = lines(cluster.head, "queen-rbee", "node_registration")
        return [line for line in found if first.cable.address in line and second.cable.address in line]

    until(both_addresses, "queen-rbee to log both addresses", explain=cluster.head.recent)
    listed = cluster.listed()[first.id]
    assert (listed["status"], listed["address"]) == ("online", first.address), "the first node keeps its id"
    assert places(cluster) == {first.id, cluster.nodes[1].id}


def test_disconnected_node_gets_no_tasks_until_reconnected(cluster: Cluster, report: Report) -> None:
    node = cluster.nodes[0]
    pids = [node.machine.show(unit, "MainPID") for unit in (MANAGER, ENGINE)]
    placed: dict[str, float] = {}

    def offline() -> bool:
        for task_id in cluster.running_on(node):
            placed.setdefault(task_id, time.monotonic())
        return cluster.status(node) == "offline"

    with under_load(lambda: ask_unlucky(cluster)) as load:
        cut = time.monotonic()
        node.cable.cut()
        until(offline, "the node to be offline", OFFLINE_WITHIN_S, cluster.head.recent)
        last = max(placed.values(), default=cut) - cut
        report(f"offline {time.monotonic() - cut:.1f} s after the cut, last placement there after {last:.1f} s")
        assert places(cluster) == {other.id for other in cluster.nodes[1:]}
        until(lambda: not cluster.running_on(node), "nothing to run on the lost node", explain=cluster.head.recent)

        node.cable.repair()
        repaired = time.monotonic()
        until(lambda: node.id in places(cluster, 3), "a task on the reconnected node", 30, cluster.head.recent)
        report(f"serving {time.monotonic() - repaired:.1f} s after the repair")
        load.wait_for_more()
    assert load.failures == {}
    assert [node.machine.show(unit, "MainPID") for unit in (MANAGER, ENGINE)] == pids


def test_node_goes_offline_when_one_direction_is_lost(cluster: Cluster) -> None:
    without_outgoing, without_incoming, connected = cluster.nodes
    without_outgoing.cable.drop_outgoing()
    without_incoming.cable.drop_incoming()
    cluster.wait_for("offline", without_outgoing, without_incoming, limit_s=OFFLINE_WITHIN_S)
    assert cluster.status(connected) == "online"
    assert places(cluster, 4) == {connected.id}
    without_outgoing.cable.repair()
    without_incoming.cable.repair()
    wait_until_all_are_used(cluster)


def test_killed_node_ends_only_its_started_answers(cluster: Cluster) -> None:
    tasks, victim = submit_long_tasks(cluster, 8)
    victim.machine.systemctl("kill", "--signal=KILL", MANAGER, ENGINE)
    first, *others = [outcome(cluster.queen, task_id) for task_id in tasks]
    assert was_cut_short(first), first.last
    ended = [done for done in others if done.last.name == "end"]
    assert all(done.tokens == LONG_ANSWER for done in ended)
    assert [done.last for done in others if done not in ended and not was_cut_short(done)] == []
    assert len(ended) >= 6, "the node had at most one other task"
    wait_until_all_are_used(cluster)


def test_queen_restart_ends_each_task_once_and_keeps_nodes(cluster: Cluster) -> None:
    engines = [node.machine.show(ENGINE, "MainPID") for node in cluster.nodes]
    before = cluster.head.show(QUEEN, "MainPID")
    tasks = [submit(cluster.queen, max_tokens=60) for _task in range(12)]
    jobs = {cluster.queen.get(f"/v2/tasks/{task_id}").json["job_id"] for task_id in tasks}
    cluster.head.systemctl("restart", QUEEN)
    assert cluster.head.show(QUEEN, "MainPID") != before
    seen: set[str] = set()

    def all_online() -> bool:
        listed = cluster.listed()
        seen.update(node["status"] for node in listed.values())
        return [node["status"] for node in listed.values()] == ["online"] * 3

    until(all_online, "the nodes to be known again", 15, cluster.head.recent)
    assert seen <= {"registering", "online"}
    until(lambda: {state(cluster, task_id) for task_id in tasks} == {"done"}, "the tasks to be done", 60)
    ends = [f"MESSAGE_ID={event.message_id}" for event in (events.TASK_ENDED, events.TASK_FAILED)]
    logged = Counter(entry["JOB_ID"] for entry in cluster.head.journal("--lines=all", *ends))
    assert {job: logged[job] for job in jobs} == dict.fromkeys(jobs, 1)
    wait_until_all_are_used(cluster)
    assert [node.machine.show(ENGINE, "MainPID") for node in cluster.nodes] == engines


def state(cluster: Cluster, task_id: str) -> str:
    return str(cluster.queen.get(f"/v2/tasks/{task_id}").json.get("state"))


def test_stopped_node_leaves_list_until_started(cluster: Cluster) -> None:
    node = cluster.nodes[1]
    node.machine.systemctl("stop", MANAGER)
    cluster.wait_for("gone", node, limit_s=GRACE_S)
    assert places(cluster) == {cluster.nodes[0].id, cluster.nodes[2].id}
    node.machine.systemctl("start", MANAGER)
    wait_until_all_are_used(cluster)


def test_rolling_restarts_lose_no_task_and_leave_no_drain(cluster: Cluster) -> None:
    with under_load(lambda: ask(cluster), workers=1) as load:
        for node in islice(cycle(cluster.nodes), RESTARTS):
            node.machine.systemctl("restart", MANAGER)
            cluster.wait_until_serving(node)
        load.wait_for_more()
    assert load.failures == {}
    for listed in cluster.listed().values():
        assert [(pool["ready"], pool["draining"]) for pool in listed["pools"]] == [(True, False)]
    wait_until_all_are_used(cluster)


def ask_while_all_are_online(cluster: Cluster) -> str | None:
    """Like `ask`, but all nodes must also be online."""
    statuses = {node["status"] for node in cluster.listed().values()}
    return ask(cluster) if statuses == {"online"} else f"nodes are {statuses}"


def times_offline(cluster: Cluster) -> int:
    """Return how often queen-rbee has set a node offline."""
    return len(cluster.head.journal("--lines=all", f"MESSAGE_ID={events.NODE_OFFLINE.message_id}"))


def wait_until_ahead(cluster: Cluster, seconds: int, *nodes: Node) -> None:
    """Wait until queen-rbee reports this clock skew for the nodes. Raises TimeoutError."""

    def known() -> bool:
        listed = cluster.listed()
        return all(abs((listed[node.id]["clock_skew_ms"] or 0) / 1000 - seconds) < 2 for node in nodes)

    until(known, f"queen-rbee to find clocks {seconds} s ahead", explain=lambda: f"{cluster.listed()}")


def orchctl(cluster: Cluster, command: str) -> str:
    """Return the output of orchctl on the machine of queen-rbee, regardless of its exit status."""
    return cluster.head.container.run("env", f"LLORCH_API_TOKEN={cluster.token}", "orchctl", command).stdout


def test_node_stays_online_when_its_clock_jumps(cluster: Cluster, undo: Callable[..., object]) -> None:
    node = cluster.nodes[0]
    clock = with_own_clock(node.machine, MANAGER, undo)
    cluster.wait_until_serving(node)
    pid, offline = node.machine.show(MANAGER, "MainPID"), times_offline(cluster)
    with under_load(lambda: ask_while_all_are_online(cluster), workers=1) as load:
        for ahead_s in JUMPS_S:
            clock.set_ahead(ahead_s)
            wait_until_ahead(cluster, ahead_s, node)
            until(lambda: node.id in places(cluster, 3), "a task on the node whose clock has jumped")
            for command in ("check", "nodes"):
                (warning,) = [line for line in orchctl(cluster, command).splitlines() if "its clock is" in line]
                assert node.id in warning
        load.wait_for_more()
    assert load.failures == {}
    assert times_offline(cluster) == offline
    assert node.machine.show(MANAGER, "MainPID") == pid


def some_run_and_some_wait(cluster: Cluster) -> bool:
    """Whether queen-rbee has running and waiting tasks."""
    return {"running", "queued"} <= {task["state"] for task in cluster.queen.get("/v2/tasks").json["tasks"]}


def test_clock_jump_of_queen_ends_nothing_early(cluster: Cluster, undo: Callable[..., object]) -> None:
    clock = with_own_clock(cluster.head, QUEEN, undo)
    cluster.wait_until_serving()
    for other in cluster.nodes[1:]:
        undo(cluster.queen.post, f"/v2/nodes/{other.id}/resume")
        assert cluster.queen.post(f"/v2/nodes/{other.id}/drain", {}).status == 202
    pid, offline = cluster.head.show(QUEEN, "MainPID"), times_offline(cluster)
    session_id = str(uuid4())
    finished = submit(cluster.queen, session_id=session_id, max_tokens=2)
    assert outcome(cluster.queen, finished).last.name == "end"
    with ThreadPoolExecutor(TASKS_ABOVE_CAPACITY) as clients:
        for ahead_s in JUMPS_S:
            fields = {"max_tokens": LONG_ANSWER, "deadline_ms": 120_000}
            tasks = [submit(cluster.queen, **fields) for _task in range(TASKS_ABOVE_CAPACITY)]
            answers = [clients.submit(outcome, cluster.queen, task) for task in tasks]
            until(lambda: some_run_and_some_wait(cluster), "running and waiting tasks", explain=cluster.head.recent)
            clock.set_ahead(ahead_s)
            date = parsedate_to_datetime(cluster.queen.get("/health").headers["date"])
            assert abs(date - datetime.now(UTC) - timedelta(seconds=ahead_s)) < timedelta(seconds=2)
            assert 400_000 < cluster.queen.get(f"/v2/sessions/{session_id}").json["ttl_ms_remaining"] < 600_000
            done = [answer.result() for answer in answers]
            assert [(each.last.name, each.tokens) for each in done] == [("end", LONG_ANSWER)] * len(answers)
            wait_until_ahead(cluster, -ahead_s, *cluster.nodes)
            assert state(cluster, finished) == "done"
    assert complete(cluster.queen, session_id=session_id, max_tokens=2).last.name == "end"
    assert cluster.queen.get(f"/v2/sessions/{session_id}").json["turns"] == 2
    assert times_offline(cluster) == offline
    assert cluster.head.show(QUEEN, "MainPID") == pid


def test_powered_off_node_ends_only_its_started_answers(cluster: Cluster) -> None:
    tasks, victim = submit_long_tasks(cluster, 8)
    victim.machine.container.power_off()
    first, *others = [outcome(cluster.queen, task_id) for task_id in tasks]
    assert was_cut_short(first), first.last
    assert [done.last for done in others if done.last.name != "end" and not was_cut_short(done)] == []
    cluster.wait_for("offline", victim, limit_s=OFFLINE_WITHIN_S)
    assert places(cluster) == {node.id for node in cluster.nodes if node is not victim}
