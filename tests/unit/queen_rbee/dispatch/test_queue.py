"""The admission queue agrees with a simple model of it."""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from queen_rbee.dispatch.queue import INTERACTIVE_PER_BATCH, AdmissionQueue, QueueFull

PRIORITIES = st.sampled_from(["interactive", "batch"])
POLICIES = st.sampled_from(["drop-lru", "reject-new"])
LANES = st.sampled_from(["any", "pool a", "pool b"])


class QueueAgainstModel(RuleBasedStateMachine):
    """`model` lists the waiting tasks in order of arrival, `attended` the droppable ones in order of attention."""

    tasks = Bundle("tasks")

    @initialize(capacity=st.integers(1, 6), policy=POLICIES, limit=st.integers(5, 20))
    def begin(self, capacity, policy, limit):
        self.queue: AdmissionQueue[int] = AdmissionQueue(capacity, policy, limit)
        self.model: dict[int, tuple[str, str, int]] = {}
        self.attended: list[int] = []
        self.restored = 0
        self.number = 0

    @rule(target=tasks, priority=PRIORITIES, lane=LANES, weight=st.integers(0, 5), firm=st.booleans())
    def admit(self, priority, lane, weight, firm):
        self.number += 1
        allowed = ["batch"] if priority == "batch" and not firm else ["batch", "interactive"]
        victims = [t for p in allowed for t in self.attended if self.model[t][0] == p]
        full = self.queue.full(weight)
        before = list(self.queue.order())
        position = self.queue.next_position(priority)
        try:
            dropped = self.queue.admit(self.number, priority, lane, weight, firm=firm).dropped
        except QueueFull:
            assert full
            assert list(self.queue.order()) == before
            assert self.queue.policy == "reject-new" or not self.fits_without(victims, weight)
            return self.number
        assert bool(dropped) == full
        assert list(dropped) == victims[: len(dropped)]
        assert self.fits_without(dropped, weight)
        assert not dropped or not self.fits_without(dropped[:-1], weight)
        for task in dropped:
            self.forget(task)
        self.model[self.number] = (priority, lane, weight)
        if not firm:
            self.attended.append(self.number)
        assert dropped or self.queue.position(self.number) == position
        return self.number

    def fits_without(self, dropped, weight) -> bool:
        left = [self.model[task][2] for task in self.model if task not in dropped]
        return len(left) < self.queue.capacity and sum(left) + weight <= self.queue.weight_limit

    @rule(target=tasks, priority=PRIORITIES, lane=LANES)
    def restore(self, priority, lane):
        """A task from before a restart is queued whatever the capacity."""
        self.number += 1
        self.restored += 1
        self.queue.restore(self.number, priority, lane, 1)
        self.model[self.number] = (priority, lane, 1)
        self.attended.append(self.number)
        return self.number

    @rule(task=tasks)
    def attend(self, task):
        self.queue.attend(task)
        if task in self.attended:
            self.attended.remove(task)
            self.attended.append(task)

    @rule(task=consumes(tasks))
    def remove(self, task):
        assert self.queue.remove(task) == (task in self.model)
        self.forget(task)

    @rule()
    def serve_next(self):
        order = list(self.queue.order())
        if order:
            self.queue.take(order[0])
            self.forget(order[0])

    @rule(data=st.data())
    def serve_another(self, data):
        """The first task cannot be placed, but a later one can."""
        order = list(self.queue.order())
        if order:
            task = data.draw(st.sampled_from(order))
            self.queue.take(task)
            self.forget(task)

    @rule(skipped=st.sets(LANES))
    def order_without_lanes(self, skipped):
        expected = [task for task in self.queue.order() if self.model[task][1] not in skipped]
        visited = list(self.queue.order(skipped))
        for priority in ("interactive", "batch"):
            assert [t for t in visited if self.model[t][0] == priority] == [
                t for t in expected if self.model[t][0] == priority
            ]

    @rule()
    def skip_each_lane_after_its_first_task(self):
        """As the dispatcher does if no slot is free that could serve a lane."""
        skipped: set[str] = set()
        visited: list[tuple[str, str]] = []
        for task in self.queue.order(skipped):
            priority, lane, _ = self.model[task]
            if lane not in skipped:
                visited.append((priority, lane))
                skipped.add(lane)
        lanes = [lane for _priority, lane in visited]
        assert len(lanes) == len(set(lanes))
        assert set(lanes) == {lane for _, lane, _ in self.model.values()}

    def forget(self, task: int) -> None:
        if self.model.pop(task, None) and task in self.attended:
            self.attended.remove(task)

    def waiting(self, priority: str) -> list[int]:
        return [task for task, (its, _, _) in self.model.items() if its == priority]

    @invariant()
    def holds_the_waiting_tasks(self):
        assert len(self.queue) == len(self.model) <= self.queue.capacity + self.restored
        assert self.queue.weight == sum(weight for _, _, weight in self.model.values())
        assert set(self.queue.order()) == set(self.model)
        assert all(task in self.queue for task in self.model)
        assert self.queue.depth("batch") == len(self.waiting("batch"))

    @invariant()
    def counts_the_tasks_of_each_lane(self):
        depths = {self.model[first][:2]: number for first, number in self.queue.lane_depths()}
        assert depths == Counter((priority, lane) for priority, lane, _weight in self.model.values())

    @invariant()
    def is_fifo_inside_a_priority(self):
        order = list(self.queue.order())
        for priority in ("interactive", "batch"):
            expected = self.waiting(priority)
            assert [t for t in order if t in expected] == expected

    @invariant()
    def positions_follow_the_order(self):
        for index, task in enumerate(self.queue.order()):
            assert self.queue.position(task) == index

    @invariant()
    def batch_task_waits_for_few_interactive_tasks(self):
        order = list(self.queue.order())
        batch = self.waiting("batch")
        if batch:
            assert order.index(batch[0]) <= INTERACTIVE_PER_BATCH


TestQueueAgainstModel = QueueAgainstModel.TestCase


def test_batch_task_is_served_after_four_interactive_ones():
    queue: AdmissionQueue[str] = AdmissionQueue(100, "reject-new")
    queue.admit("batch", "batch")
    served = []
    for number in range(10):
        queue.admit(f"i{number}", "interactive")
        task = next(queue.order())
        queue.take(task)
        served.append(task)
    assert served.index("batch") == INTERACTIVE_PER_BATCH


def test_position_of_unknown_task_is_none():
    queue: AdmissionQueue[str] = AdmissionQueue(1, "reject-new")
    assert queue.position("nobody") is None
