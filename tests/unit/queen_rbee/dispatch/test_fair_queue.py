"""With shares, the queue serves holders fairly, and one of them cannot take the places of another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queen_rbee.dispatch.queue import AdmissionQueue, QueueFull
from queen_rbee.keys.shares import Share

HOLDERS = st.sampled_from(["", "a", "b", "c"])
WEIGHTS = {"": 1, "a": 1, "b": 2, "c": 5}


def share(holder: str, cost: float = 100.0) -> Share:
    return Share(holder, WEIGHTS[holder], cost)


class FairQueue(RuleBasedStateMachine):
    """`waiting` has the tasks of each holder in order of arrival; tasks without a share are the holder None's."""

    @initialize(policy=st.sampled_from(["drop-lru", "reject-new"]))
    def begin(self, policy):
        self.queue: AdmissionQueue[int] = AdmissionQueue(12, policy)
        self.waiting: dict[str | None, list[int]] = {}
        self.number = 0

    @rule(holder=HOLDERS | st.none(), lane=st.sampled_from(["x", "y"]))
    def admit(self, holder, lane):
        self.number += 1
        before = list(self.queue.order())
        own = share(holder) if holder is not None else None
        try:
            dropped = self.queue.admit(self.number, "interactive", lane, 3, share=own).dropped
        except QueueFull:
            assert list(self.queue.order()) == before
            assert holder is None or self.queue.policy == "drop-lru" or self.waiting.get(holder) or len(before) >= 12
            return
        for task in dropped:
            owner = next(name for name, tasks in self.waiting.items() if task in tasks)
            if owner is not None and holder is not None and owner != holder:
                places = len(self.waiting[owner]) / WEIGHTS[owner]
                assert places > len(self.waiting.get(holder, [])) / WEIGHTS[holder]
            self.forget(task)
        self.waiting.setdefault(holder, []).append(self.number)

    @precondition(lambda self: len(self.queue) > 0)
    @rule()
    def serve(self):
        first = next(self.queue.order())
        self.queue.take(first)
        self.forget(first)

    @precondition(lambda self: len(self.queue) > 0)
    @rule(index=st.integers(0, 11))
    def cancel(self, index):
        task = list(self.queue.order())[index % len(self.queue)]
        assert self.queue.remove(task)
        self.forget(task)

    @precondition(lambda self: len(self.queue) > 0)
    @rule()
    def serve_and_put_back(self):
        first = next(self.queue.order())
        self.queue.take(first)
        self.queue.put_back(first, "interactive", "x", 3)
        self.forget(first)
        self.waiting.setdefault(None, []).insert(0, first)
        assert next(self.queue.order()) == first

    def forget(self, task):
        for name, tasks in list(self.waiting.items()):
            if task in tasks:
                tasks.remove(task)
                if not tasks:
                    del self.waiting[name]

    @invariant()
    def order_has_all_tasks_of_each_holder_in_order(self):
        order = list(self.queue.order())
        for tasks in self.waiting.values():
            assert [task for task in order if task in tasks] == tasks
        assert len(order) == len(self.queue) == sum(map(len, self.waiting.values()))
        assert self.queue.weight == 3 * len(order)

    @invariant()
    def positions_are_those_of_the_order(self):
        for index, task in enumerate(self.queue.order()):
            # two holders whose turn is at the same time may change places in the estimate
            assert abs((self.queue.position(task) or 0) - index) <= len(self.waiting)


TestFairQueue = FairQueue.TestCase


@pytest.mark.parametrize("policy", ["drop-lru", "reject-new"])
def test_thousand_tasks_leave_a_place_for_first_of_another(policy) -> None:
    queue: AdmissionQueue[int] = AdmissionQueue(100, policy)
    for number in range(1000):
        try:
            queue.admit(number, "interactive", share=share("a"))
        except QueueFull:
            assert policy == "reject-new"
    queue.admit(1000, "interactive", share=share("b"))
    assert 1000 in list(queue.order())[:2]
    assert queue.position(1000) in (0, 1)


@given(st.lists(HOLDERS, min_size=1, max_size=200), st.integers(8, 40))
def test_under_reject_new_nobody_is_dropped(holders: list[str], capacity: int) -> None:
    queue: AdmissionQueue[int] = AdmissionQueue(capacity, "reject-new")
    for number, holder in enumerate(holders):
        try:
            assert queue.admit(number, "interactive", share=share(holder)).dropped == ()
        except QueueFull:
            assert len(queue) > 0
    assert len(queue) <= capacity


def test_blocked_lane_of_one_holder_does_not_stop_others() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(100, "reject-new")
    for name, lane in (("a1", "x"), ("a2", "y"), ("b1", "x"), ("b2", "y")):
        queue.admit(name, "interactive", lane, share=share(name[0]))
    assert sorted(queue.order({"x"})) == ["a2", "b2"]


def test_batch_and_interactive_share_one_account() -> None:
    queue: AdmissionQueue[int] = AdmissionQueue(1000, "reject-new")
    for number in range(100):
        queue.admit(number, "batch", share=share("a"))
        queue.admit(100 + number, "batch", share=share("b"))
    for number in range(200, 210):
        queue.admit(number, "interactive", share=share("a"))
    served = []
    for _ in range(24):
        first = next(queue.order())
        queue.take(first)
        served.append(first)
    # a had 10 interactive tasks before any of b's was due: b's batch tasks come first until that is made up for
    assert sum(100 <= task < 200 for task in served) >= 8


def test_holder_of_most_places_displaces_nobody() -> None:
    queue: AdmissionQueue[int] = AdmissionQueue(4, "drop-lru")
    for number in range(3):
        queue.admit(number, "interactive", firm=True, share=share("a"))
    queue.admit(3, "interactive", share=share("b"))
    with pytest.raises(QueueFull):
        queue.admit(4, "interactive", share=share("a"))
    assert 3 in queue
