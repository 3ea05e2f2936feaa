"""The admission queue keeps its promises against a plain model of it."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from queen_rbee.admission import INTERACTIVE_IN_A_ROW, AdmissionQueue, QueueFull

PRIORITIES = st.sampled_from(["interactive", "batch"])


class QueueAgainstModel(RuleBasedStateMachine):
    """It must agree with a list of (task, priority) in order of arrival and with when each was last attended."""

    tasks = Bundle("tasks")

    @initialize(capacity=st.integers(1, 6), policy=st.sampled_from(["drop-lru", "reject-new"]))
    def begin(self, capacity, policy):
        self.queue: AdmissionQueue[int] = AdmissionQueue(capacity, policy)
        self.model: list[tuple[int, str]] = []
        self.attended: dict[int, float] = {}
        self.clock = 0.0
        self.number = 0

    def tick(self) -> float:
        self.clock += 1.0
        return self.clock

    @rule(target=tasks, priority=PRIORITIES)
    def admit(self, priority):
        self.number += 1
        now = self.tick()
        full = len(self.model) >= self.queue.capacity
        allowed = ["batch"] if priority == "batch" else ["batch", "interactive"]
        victims = [t for p in allowed for t in sorted(self.waiting(p), key=self.attended.__getitem__)]
        try:
            dropped = self.queue.admit(self.number, priority, now).dropped
        except QueueFull:
            assert full
            assert self.queue.policy == "reject-new" or not victims
            return self.number
        assert (dropped is not None) == full
        if dropped is not None:
            assert dropped == victims[0]
            self.forget(dropped)
        self.model.append((self.number, priority))
        self.attended[self.number] = now
        return self.number

    @rule(task=tasks)
    def attend(self, task):
        now = self.tick()
        self.queue.attend(task, now)
        if task in self.attended:
            self.attended[task] = now

    @rule(task=consumes(tasks))
    def remove(self, task):
        assert self.queue.remove(task) == (task in self.attended)
        self.forget(task)

    @rule()
    def serve_next(self):
        order = list(self.queue.order())
        if order:
            self.queue.take(order[0])
            self.forget(order[0])

    @rule(data=st.data())
    def serve_another(self, data):
        """The first in line cannot be placed, but one behind it can."""
        order = list(self.queue.order())
        if order:
            task = data.draw(st.sampled_from(order))
            self.queue.take(task)
            self.forget(task)

    def forget(self, task: int) -> None:
        self.model = [(t, p) for t, p in self.model if t != task]
        self.attended.pop(task, None)

    def waiting(self, priority: str) -> list[int]:
        return [t for t, p in self.model if p == priority]

    @invariant()
    def holds_just_what_waits(self):
        assert len(self.queue) == len(self.model) <= self.queue.capacity
        assert set(self.queue.order()) == {t for t, _ in self.model}
        assert all(t in self.queue for t, _ in self.model)
        assert self.queue.depth("batch") == len(self.waiting("batch"))

    @invariant()
    def is_fifo_inside_a_priority(self):
        order = list(self.queue.order())
        for priority in ("interactive", "batch"):
            wanted = self.waiting(priority)
            assert [t for t in order if t in wanted] == wanted

    @invariant()
    def positions_are_what_the_order_says(self):
        for index, task in enumerate(self.queue.order()):
            assert self.queue.position(task) == index

    @invariant()
    def batch_never_waits_for_more_than_a_few_interactive_tasks(self):
        order = list(self.queue.order())
        batch = self.waiting("batch")
        if batch:
            assert order.index(batch[0]) <= INTERACTIVE_IN_A_ROW


TestQueueAgainstModel = QueueAgainstModel.TestCase


def test_a_batch_task_is_served_after_four_interactive_ones_however_many_come():
    queue: AdmissionQueue[str] = AdmissionQueue(100, "reject-new")
    queue.admit("batch", "batch", 0)
    served = []
    for number in range(10):
        queue.admit(f"i{number}", "interactive", number)
        task = next(queue.order())
        queue.take(task)
        served.append(task)
    assert served.index("batch") == INTERACTIVE_IN_A_ROW


def test_position_of_a_stranger_is_none():
    queue: AdmissionQueue[str] = AdmissionQueue(1, "reject-new")
    assert queue.position("nobody") is None
