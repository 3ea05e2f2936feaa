"""A refused client that retries on time gets in, in order, and no slot idles for a reservation."""

import math
from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queen_rbee.dispatch.estimates import RETRY_MARGIN
from queen_rbee.intake.backpressure import GRACE_S, MAX_WAIT_S, Reservations

KEYS = st.sampled_from(["a", "b", "c"])


class ReservationsAgainstModel(RuleBasedStateMachine):
    """`model` is a plain list of (time, key)."""

    def __init__(self) -> None:
        super().__init__()
        self.reservations = Reservations(limit=8)
        self.model: list[tuple[float, str]] = []
        self.now = 100.0
        self.last = 0.0

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, GRACE_S, 10.0]))
    def wait(self, seconds):
        self.now += seconds
        self.model = [item for item in self.model if item[0] + GRACE_S >= self.now]

    @rule(key=KEYS, gap=st.sampled_from([0.25, 1.0, MAX_WAIT_S + 1]))
    def refuse(self, key, gap):
        when = max(self.last, self.now) + gap
        wait = self.reservations.reserve(key, self.now, gap)
        if when - self.now > MAX_WAIT_S or len(self.model) >= 8:
            assert wait == MAX_WAIT_S
            return
        assert wait == when - self.now
        self.last = when
        self.model.append((when, key))

    @rule(key=KEYS)
    def retry(self, key):
        mine = [item for item in self.model if item[1] == key and item[0] <= self.now]
        assert self.reservations.claim(key, self.now) == bool(mine)
        if mine:
            self.model.remove(mine[0])

    @invariant()
    def counts_due_reservations(self):
        assert self.reservations.due(self.now) == sum(when <= self.now for when, _key in self.model)
        assert len(self.reservations) == len(self.model)

    @precondition(lambda self: self.model)
    @invariant()
    def keeps_reserved_places_free(self):
        reserved = self.reservations.reserved(16, self.now)
        assert not self.reservations.admits(16 - reserved, 16, 0, self.now)
        assert self.reservations.admits(15 - reserved, 16, 0, self.now)

    @invariant()
    def keeps_few_places_for_upcoming_reservations(self):
        due = self.reservations.due(self.now)
        assert self.reservations.reserved(16, self.now) - due == min(2, len(self.model) - due)


TestReservationsAgainstModel = ReservationsAgainstModel.TestCase


@given(depth=st.integers(0, 20), slots=st.integers(0, 20), due=st.integers(0, 20))
def test_queue_never_overflows_and_slots_never_idle(depth, slots, due):
    reservations = Reservations()
    for number in range(due):
        reservations.reserve(number, 0.0, 0.001)
    admitted = reservations.admits(depth, 10, slots, 1.0)
    assert admitted == (depth < 10 and (depth < slots or depth + due < 10))


def test_same_key_may_hold_two_reservations():
    reservations = Reservations()
    for _twice in range(2):
        reservations.reserve("same", 0.0, 0.1)
    claims = Counter(reservations.claim("same", 1.0) for _thrice in range(3))
    assert claims == {True: 2, False: 1}


def test_clients_that_retry_on_time_get_in():
    """A place comes free each second, refused clients retry on time, and three new clients arrive each second."""
    reservations, capacity, depth = Reservations(), 5, 5
    retries: dict[int, list[str]] = {}
    got_in = refused_again = number = 0
    for second in range(200):
        now = float(second)
        depth -= 1
        for client in retries.pop(second, ()):
            if reservations.claim(client, now) and depth < capacity:
                depth, got_in = depth + 1, got_in + 1
            else:
                refused_again += 1
        for _new_client in range(3):
            number += 1
            if reservations.admits(depth, capacity, 1, now):
                depth += 1
            else:
                wait = reservations.reserve(f"client {number}", now, 1.0)
                retries.setdefault(int(now + wait), []).append(f"client {number}")
    assert refused_again == 0
    assert got_in > 150


@given(slots=st.integers(1, 8), new_clients_first=st.booleans(), new_clients=st.integers(2, 5))
def test_retries_on_time_get_in_although_places_come_in_bursts(slots, new_clients_first, new_clients):
    """All slots come free together, every `slots` ticks; refused clients retry at exactly their tick."""
    queue, number = SimulatedQueue(slots), count()
    for now in range(1, 300):
        if now % slots == 0:
            queue.depth -= min(queue.depth, slots)
        coming = queue.retries.pop(now, [])
        for client in () if new_clients_first else coming:
            queue.retry(client, now)
        for _new_client in range(new_clients):
            queue.arrive(next(number), now)
        for client in coming if new_clients_first else ():
            queue.retry(client, now)
    assert queue.got_in > 200
    assert queue.refused_again <= slots  # the queue was full before the first reservation


class SimulatedQueue:
    """A queue of 64 in which one place comes free per tick on average."""

    def __init__(self, slots: int) -> None:
        self.reservations = Reservations()
        self.retries: dict[int, list[int]] = {}
        self.slots = slots
        self.depth = self.got_in = self.refused_again = 0

    def arrive(self, client: int, now: int) -> None:
        if self.reservations.admits(self.depth, 64, self.slots, now):
            self.depth += 1
        else:
            wait = self.reservations.reserve(client, now, RETRY_MARGIN)
            self.retries.setdefault(math.ceil(now + wait), []).append(client)

    def retry(self, client: int, now: int) -> None:
        if self.reservations.claim(client, now) and self.depth < 64:
            self.depth, self.got_in = self.depth + 1, self.got_in + 1
        else:
            self.refused_again += 1
