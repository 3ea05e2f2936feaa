"""A cluster of a queen and three nodes, and what cables, kills and restarts do to it: the last test ends a node."""

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
from tests.system.lab.client import Client, Outcome, complete, outcome, submit
from tests.system.lab.clock import clock_of_its_own
from tests.system.lab.cluster import ENGINE, MANAGER, NODE_TIMEOUT_S, POOL, STALE_CHECK_S, Cluster, Node, cluster
from tests.system.lab.load import under_load
from tests.system.lab.machine import Machine
from tests.system.lab.waiting import until

QUEEN = "queen-rbee.service"
GRACE_S = 3
"""What a busy machine may take to say what it knows."""
OFFLINE_WITHIN_S = NODE_TIMEOUT_S + STALE_CHECK_S + GRACE_S
RESTARTS = 40
LONG = 200
"""Tokens of a task that is still running when something is done to its node."""
MANY = 5
"""So many tasks that some of them wait for as long as the others run on one node."""
JUMPS_S = (3600, -86400)
"""What clocks are set to, one after the other: so far ahead, and so far behind."""

Say = Callable[[str], None]


@pytest.fixture(scope="module")
def booted_cluster(deb: Path, llama_server_tar: Archive, slow_model: Path) -> Iterator[Cluster]:
    """The module's cluster."""
    with cluster(deb, llama_server_tar, slow_model) as made:
        yield made


def _mend(node: Node) -> None:
    """One whose machine has lost its power has no cable any more."""
    if Path(f"/proc/{node.cable.machine}").exists():
        node.cable.mend()


@pytest.fixture
def whole(booted_cluster: Cluster, undo: Callable[..., object]) -> Cluster:
    """The cluster with all its nodes serving; cables are mended when the test ends."""
    booted_cluster.wait_until_serving()
    for node in booted_cluster.nodes:
        undo(_mend, node)
    return booted_cluster


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Print a figure for whoever runs the tests."""

    def show(words: str) -> None:
        with capsys.disabled():
            print(f"\n  {words}")

    return show


def ask(whole: Cluster) -> str | None:
    """A short task for `under_load`, which must end as it should."""
    done = complete(whole.queen, max_tokens=4)
    return None if done.last.name == "end" else f"{done.last}"


def ask_unlucky(whole: Cluster) -> str | None:
    """As `ask`, where the task may have been in the middle of its answer on a node that is lost."""
    done = complete(whole.queen, max_tokens=4)
    return None if done.last.name == "end" or was_cut_short(done) else f"{done.tokens} tokens, {done.last}"


def was_cut_short(done: Outcome) -> bool:
    """Whether the task lost its node after its first token; one without a token must go elsewhere instead."""
    data = done.last.data
    return bool(done.last.name == "error" and data["code"] == "WORKER_RESET" and data["retriable"] and done.tokens)


def places(whole: Cluster, number: int = 9) -> set[str]:
    """The ids of the nodes that a number of short tasks, one after the other, ended on."""
    tasks = [submit(whole.queen, max_tokens=2) for _task in range(number)]
    assert {outcome(whole.queen, task_id).last.name for task_id in tasks} == {"end"}
    return {whole.node_of(task_id) for task_id in tasks}


def wait_until_all_are_used(whole: Cluster) -> None:
    """Return when tasks are placed on every node. Raises TimeoutError."""
    ids = {node.id for node in whole.nodes}
    until(lambda: places(whole) == ids, "tasks on every node", 30, whole.head.recent)


def begun(whole: Cluster, number: int) -> tuple[list[str], Node]:
    """A number of long tasks, the first of which has begun to answer, and the node where it does."""
    tasks = [submit(whole.queen, max_tokens=LONG) for _task in range(number)]
    assert next(event for event in whole.queen.events(f"/v2/tasks/{tasks[0]}/events") if event.name == "token")
    where = whole.node_of(tasks[0])
    return tasks, next(node for node in whole.nodes if node.id == where)


def lines(machine: Machine, unit: str, word: str) -> list[str]:
    """`journalctl -u UNIT | grep WORD`"""
    words = f"journalctl --no-pager -u {unit} | grep {word} || true"
    return machine.container.check("sh", "-c", words).splitlines()


def test_all_nodes_appear_online_with_their_pools_ready(whole: Cluster) -> None:
    answer = whole.queen.get("/v2/nodes").json
    assert answer["count"] == len(answer["nodes"]) == 3
    for node in whole.nodes:
        listed = whole.listed()[node.id]
        assert (listed["status"], listed["address"]) == ("online", node.address)
        assert [(pool["pool_id"], pool["ready"], pool["draining"]) for pool in listed["pools"]] == [
            (POOL.id, True, False)
        ]
    assert len({listed["machine_id"] for listed in whole.listed().values()}) == 3
    assert Client(whole.head.container).get("/v2/nodes").status == 401, "the list is not for everybody"


def test_tasks_are_spread_over_all_nodes(whole: Cluster) -> None:
    assert places(whole) == {node.id for node in whole.nodes}


def test_a_node_with_a_wrong_token_is_refused_and_both_logs_say_so(whole: Cluster, undo: Callable[..., object]) -> None:
    node, wrong = whole.nodes[2], secrets.token_hex(32)
    fingerprint = hashlib.sha256(wrong.encode()).hexdigest()[:6]
    undo(node.machine.systemctl, "restart", MANAGER)
    undo(node.set_token, whole.token)
    node.set_token(wrong)
    node.machine.systemctl("restart", MANAGER)

    def queens_words() -> list[str]:
        return [line for line in lines(whole.head, "queen-rbee", "token_fp6") if fingerprint in line]

    def nodes_words() -> list[str]:
        return [line for line in lines(node.machine, "pool-managerd", "registration") if "refused" in line]

    until(queens_words, "the queen to log the wrong token's fingerprint", explain=whole.head.recent)
    until(nodes_words, "the node to log that it was refused", explain=node.machine.recent)
    assert whole.status(node) in ("gone", "offline")
    assert places(whole) == {other.id for other in whole.nodes[:2]}
    for machine in (whole.head, node.machine):
        assert wrong not in machine.container.check("journalctl", "--no-pager", "--output=export")


def test_a_second_machine_with_a_nodes_id_is_refused_and_the_queen_names_both_addresses(
    whole: Cluster, undo: Callable[..., object]
) -> None:
    first, _, second = whole.nodes
    undo(second.machine.systemctl, "restart", MANAGER)
    undo(second.rename, second.id)
    second.rename(first.id)
    second.machine.systemctl("restart", MANAGER)

    def both_addresses() -> list[str]:
        found = lines(whole.head, "queen-rbee", "node_registration")
        return [line for line in found if first.cable.address in line and second.cable.address in line]

    until(both_addresses, "the queen to log both addresses", explain=whole.head.recent)
    listed = whole.listed()[first.id]
    assert (listed["status"], listed["address"]) == ("online", first.address), "the first one keeps its name"
    assert places(whole) == {first.id, whole.nodes[1].id}


def test_a_node_that_is_cut_off_gets_no_more_tasks_and_serves_again_once_mended(whole: Cluster, say: Say) -> None:
    node = whole.nodes[0]
    pids = [node.machine.show(unit, "MainPID") for unit in (MANAGER, ENGINE)]
    placed: dict[str, float] = {}

    def offline() -> bool:
        for task_id in whole.running_on(node):
            placed.setdefault(task_id, time.monotonic())
        return whole.status(node) == "offline"

    with under_load(lambda: ask_unlucky(whole)) as load:
        cut = time.monotonic()
        node.cable.cut()
        until(offline, "the node to be offline", OFFLINE_WITHIN_S, whole.head.recent)
        last = max(placed.values(), default=cut) - cut
        say(f"offline {time.monotonic() - cut:.1f} s after the cut, last placement there after {last:.1f} s")
        assert places(whole) == {other.id for other in whole.nodes[1:]}
        until(lambda: not whole.running_on(node), "nothing to run on the lost node", explain=whole.head.recent)

        node.cable.mend()
        mended = time.monotonic()
        until(lambda: node.id in places(whole, 3), "a task on the mended node", 30, whole.head.recent)
        say(f"serving {time.monotonic() - mended:.1f} s after it was mended")
        load.wait_for_more()
    assert load.failures == {}
    assert [node.machine.show(unit, "MainPID") for unit in (MANAGER, ENGINE)] == pids


def test_a_node_goes_offline_whichever_way_its_packets_are_lost(whole: Cluster) -> None:
    mute, deaf, sound = whole.nodes
    mute.cable.lose_what_goes()
    deaf.cable.lose_what_comes()
    whole.wait_for("offline", mute, deaf, limit_s=OFFLINE_WITHIN_S)
    assert whole.status(sound) == "online"
    assert places(whole, 4) == {sound.id}
    mute.cable.mend()
    deaf.cable.mend()
    wait_until_all_are_used(whole)


def test_a_node_that_is_killed_ends_only_the_answers_it_had_begun(whole: Cluster) -> None:
    tasks, victim = begun(whole, 8)
    victim.machine.systemctl("kill", "--signal=KILL", MANAGER, ENGINE)
    first, *others = [outcome(whole.queen, task_id) for task_id in tasks]
    assert was_cut_short(first), first.last
    ended = [done for done in others if done.last.name == "end"]
    assert all(done.tokens == LONG for done in ended)
    assert [done.last for done in others if done not in ended and not was_cut_short(done)] == []
    assert len(ended) >= 6, "the node had one other task at most"
    wait_until_all_are_used(whole)


def test_a_queen_that_is_restarted_under_load_ends_each_task_once_and_takes_no_node_for_dead(whole: Cluster) -> None:
    engines = [node.machine.show(ENGINE, "MainPID") for node in whole.nodes]
    before = whole.head.show(QUEEN, "MainPID")
    tasks = [submit(whole.queen, max_tokens=60) for _task in range(18)]
    jobs = {whole.queen.get(f"/v2/tasks/{task_id}").json["job_id"] for task_id in tasks}
    whole.head.systemctl("restart", QUEEN)
    assert whole.head.show(QUEEN, "MainPID") != before
    seen: set[str] = set()

    def all_online() -> bool:
        listed = whole.listed()
        seen.update(node["status"] for node in listed.values())
        return [node["status"] for node in listed.values()] == ["online"] * 3

    until(all_online, "the nodes to be known again", 15, whole.head.recent)
    assert seen <= {"registering", "online"}
    until(lambda: {state(whole, task_id) for task_id in tasks} == {"done"}, "the tasks to be done", 60)
    ends = [f"MESSAGE_ID={event.message_id}" for event in (events.TASK_ENDED, events.TASK_FAILED)]
    logged = Counter(entry["JOB_ID"] for entry in whole.head.journal("--lines=all", *ends))
    assert {job: logged[job] for job in jobs} == dict.fromkeys(jobs, 1)
    wait_until_all_are_used(whole)
    assert [node.machine.show(ENGINE, "MainPID") for node in whole.nodes] == engines


def state(whole: Cluster, task_id: str) -> str:
    return str(whole.queen.get(f"/v2/tasks/{task_id}").json.get("state"))


def test_a_node_that_is_stopped_leaves_the_list_and_comes_back_when_started(whole: Cluster) -> None:
    node = whole.nodes[1]
    node.machine.systemctl("stop", MANAGER)
    whole.wait_for("gone", node, limit_s=GRACE_S)
    assert places(whole) == {whole.nodes[0].id, whole.nodes[2].id}
    node.machine.systemctl("start", MANAGER)
    wait_until_all_are_used(whole)


def test_rolling_restarts_lose_no_task_and_leave_nothing_drained(whole: Cluster) -> None:
    with under_load(lambda: ask(whole), workers=1) as load:
        for node in islice(cycle(whole.nodes), RESTARTS):
            node.machine.systemctl("restart", MANAGER)
            whole.wait_until_serving(node)
        load.wait_for_more()
    assert load.failures == {}
    for listed in whole.listed().values():
        assert [(pool["ready"], pool["draining"]) for pool in listed["pools"]] == [(True, False)]
    wait_until_all_are_used(whole)


def ask_while_all_are_online(whole: Cluster) -> str | None:
    """As `ask`, after a look at the nodes."""
    statuses = {node["status"] for node in whole.listed().values()}
    return ask(whole) if statuses == {"online"} else f"nodes are {statuses}"


def times_offline(whole: Cluster) -> int:
    """How often the queen has given a node up."""
    return len(whole.head.journal("--lines=all", f"MESSAGE_ID={events.NODE_OFFLINE.message_id}"))


def wait_until_ahead(whole: Cluster, seconds: int, *nodes: Node) -> None:
    """Return when the queen knows that the nodes' clocks are so far ahead of hers. Raises TimeoutError."""

    def known() -> bool:
        listed = whole.listed()
        return all(abs((listed[node.id]["clock_skew_ms"] or 0) / 1000 - seconds) < 2 for node in nodes)

    until(known, f"the queen to find clocks {seconds} s ahead", explain=lambda: f"{whole.listed()}")


def orchctl(whole: Cluster, command: str) -> str:
    """What orchctl tells on the queen's machine, whatever it makes of it."""
    return whole.head.container.run("env", f"LLORCH_API_TOKEN={whole.token}", "orchctl", command).stdout


def test_a_node_whose_clock_jumps_stays_online_and_serves(whole: Cluster, undo: Callable[..., object]) -> None:
    node = whole.nodes[0]
    clock = clock_of_its_own(node.machine, MANAGER, undo)
    whole.wait_until_serving(node)
    pid, offline = node.machine.show(MANAGER, "MainPID"), times_offline(whole)
    with under_load(lambda: ask_while_all_are_online(whole), workers=1) as load:
        for ahead_s in JUMPS_S:
            clock.set_ahead(ahead_s)
            wait_until_ahead(whole, ahead_s, node)
            until(lambda: node.id in places(whole, 3), "a task on the node whose clock has jumped")
            for command in ("check", "nodes"):
                (told,) = [line for line in orchctl(whole, command).splitlines() if "its clock is" in line]
                assert node.id in told
        load.wait_for_more()
    assert load.failures == {}
    assert times_offline(whole) == offline
    assert node.machine.show(MANAGER, "MainPID") == pid


def some_run_and_some_wait(whole: Cluster) -> bool:
    """Whether the queen has tasks of both kinds."""
    return {"running", "queued"} <= {task["state"] for task in whole.queen.get("/v2/tasks").json["tasks"]}


def test_a_queen_whose_clock_jumps_ends_nothing_before_its_time(whole: Cluster, undo: Callable[..., object]) -> None:
    clock = clock_of_its_own(whole.head, QUEEN, undo)
    whole.wait_until_serving()
    for other in whole.nodes[1:]:
        undo(whole.queen.post, f"/v2/nodes/{other.id}/resume")
        assert whole.queen.post(f"/v2/nodes/{other.id}/drain", {}).status == 202
    pid, offline = whole.head.show(QUEEN, "MainPID"), times_offline(whole)
    session_id = str(uuid4())
    told = submit(whole.queen, session_id=session_id, max_tokens=2)
    assert outcome(whole.queen, told).last.name == "end"
    with ThreadPoolExecutor(MANY) as clients:
        for ahead_s in JUMPS_S:
            asked = {"max_tokens": LONG, "deadline_ms": 120_000}
            tasks = [submit(whole.queen, **asked) for _task in range(MANY)]
            answers = [clients.submit(outcome, whole.queen, task) for task in tasks]
            until(lambda: some_run_and_some_wait(whole), "running and waiting tasks", explain=whole.head.recent)
            clock.set_ahead(ahead_s)
            date = parsedate_to_datetime(whole.queen.get("/health").headers["date"])
            assert abs(date - datetime.now(UTC) - timedelta(seconds=ahead_s)) < timedelta(seconds=2)
            assert 400_000 < whole.queen.get(f"/v2/sessions/{session_id}").json["ttl_ms_remaining"] < 600_000
            done = [answer.result() for answer in answers]
            assert [(each.last.name, each.tokens) for each in done] == [("end", LONG)] * len(answers)
            wait_until_ahead(whole, -ahead_s, *whole.nodes)
            assert state(whole, told) == "done"
    assert complete(whole.queen, session_id=session_id, max_tokens=2).last.name == "end"
    assert whole.queen.get(f"/v2/sessions/{session_id}").json["turns"] == 2
    assert times_offline(whole) == offline
    assert whole.head.show(QUEEN, "MainPID") == pid


def test_a_node_without_power_ends_only_the_answers_it_had_begun(whole: Cluster) -> None:
    tasks, victim = begun(whole, 8)
    victim.machine.container.power_off()
    first, *others = [outcome(whole.queen, task_id) for task_id in tasks]
    assert was_cut_short(first), first.last
    assert [done.last for done in others if done.last.name != "end" and not was_cut_short(done)] == []
    whole.wait_for("offline", victim, limit_s=OFFLINE_WITHIN_S)
    assert places(whole) == {node.id for node in whole.nodes if node is not victim}
