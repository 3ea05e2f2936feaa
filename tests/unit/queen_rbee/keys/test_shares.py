"""Holders get the slots in the shares of their weights, and none waits behind what another has queued."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.keys.shares import Flow, Share, Shares, in_shares

COSTS = st.floats(16, 4000)
WEIGHTS = st.integers(1, 20)


def served(shares: Shares, waiting: dict[str, list[Share]], number: int) -> list[str]:
    """Serve `number` tasks, one at a time; return whose they were."""
    found = []
    for _ in range(number):
        flows = [Flow(name, shares.time_of(name), iter([(name, tasks[0].advance)])) for name, tasks in waiting.items()]
        name = next(in_shares(flows))
        shares.served(waiting[name].pop(0))
        found.append(name)
        if not waiting[name]:
            del waiting[name]
    return found


@given(st.lists(st.tuples(WEIGHTS, st.lists(COSTS, min_size=1, max_size=5)), min_size=2, max_size=6))
def test_backlogged_holders_differ_by_less_than_two_tasks(holders: list[tuple[int, list[float]]]) -> None:
    shares = Shares()
    tasks = {
        str(number): [Share(str(number), weight, costs[index % len(costs)]) for index in range(400)]
        for number, (weight, costs) in enumerate(holders)
    }
    for name in tasks:
        shares.join(name)
    work: Counter[str] = Counter()
    waiting = {name: list(own) for name, own in tasks.items()}
    for name in served(shares, waiting, 200):
        work[name] += 1
    times = {name: sum(task.advance for task in own[: work[name]]) for name, own in tasks.items()}
    largest = max(task.advance for own in tasks.values() for task in own)
    assert max(times.values()) - min(times.values()) <= largest * (1 + 1e-9)


@given(st.integers(0, 300), WEIGHTS, WEIGHTS, COSTS)
def test_first_task_of_newcomer_is_next(before: int, heavy: int, light: int, cost: float) -> None:
    shares = Shares()
    shares.join("heavy")
    waiting = {"heavy": [Share("heavy", heavy, cost)] * 1000}
    served(shares, waiting, before)
    shares.join("light")
    waiting["light"] = [Share("light", light, cost)]
    assert "light" in served(shares, waiting, 2)


@given(st.lists(st.sampled_from(["join", "serve", "correct"]), max_size=200), st.integers(2, 8))
def test_memory_is_bounded_and_time_never_runs_back(steps: list[str], limit: int) -> None:
    shares, last = Shares(limit), 0.0
    for number, step in enumerate(steps):
        share = Share(str(number), 1.0, 100.0)
        shares.join(share.holder)
        if step != "join":
            shares.served(share)
        if step == "correct":
            shares.correct(share, 16.0)
        assert shares.now >= last
        last = shares.now
        if step == "join":
            assert len(shares) <= max(limit, sum(each != "join" for each in steps)) + 1


def test_idle_holder_has_saved_nothing() -> None:
    shares = Shares()
    shares.join("busy")
    waiting = {"busy": [Share("busy", 1, 100.0)] * 50}
    served(shares, waiting, 40)
    shares.join("idle")
    waiting["idle"] = [Share("idle", 1, 100.0)] * 50
    found = Counter(served(shares, waiting, 10))
    assert abs(found["busy"] - found["idle"]) <= 1


def test_longer_answers_than_expected_are_charged() -> None:
    shares = Shares()
    for name in ("short", "long"):
        shares.join(name)
    waiting = {name: [Share(name, 1, 100.0)] * 400 for name in ("short", "long")}
    found: Counter[str] = Counter()
    for _ in range(200):
        name = served(shares, waiting, 1)[0]
        found[name] += 1
        shares.correct(Share(name, 1, 100.0), 300.0 if name == "long" else 100.0)
    assert found["short"] / found["long"] == pytest.approx(3, rel=0.05)


def test_order_is_that_of_service() -> None:
    flows = [Flow("a", 0.0, iter([("a1", 10.0), ("a2", 10.0)])), Flow("b", 5.0, iter([("b1", 1.0), ("b2", 1.0)]))]
    assert list(in_shares(flows)) == ["a1", "b1", "b2", "a2"]
