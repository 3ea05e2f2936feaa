"""Whoever is refused and comes back when told gets in; nobody is overtaken, and no slot idles for a promise."""

import math
from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queen_rbee.dispatch.estimates import MARGIN
from queen_rbee.intake.backpressure import GRACE_S, LONGEST_S, Promises

KEYS = st.sampled_from(["a", "b", "c"])


class PromisesAgainstModel(RuleBasedStateMachine):
    """They must agree with a plain list of (time, key)."""

    def __init__(self) -> None:
        super().__init__()
        self.promises = Promises(kept=8)
        self.model: list[tuple[float, str]] = []
        self.now = 100.0
        self.last = 0.0

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, GRACE_S, 10.0]))
    def wait(self, seconds):
        self.now += seconds
        self.model = [item for item in self.model if item[0] + GRACE_S >= self.now]

    @rule(key=KEYS, gap=st.sampled_from([0.25, 1.0, LONGEST_S + 1]))
    def refuse(self, key, gap):
        when = max(self.last, self.now) + gap
        wait = self.promises.promise(key, self.now, gap)
        if when - self.now > LONGEST_S or len(self.model) >= 8:
            assert wait == LONGEST_S
            return
        assert wait == when - self.now
        self.last = when
        self.model.append((when, key))

    @rule(key=KEYS)
    def come(self, key):
        mine = [item for item in self.model if item[1] == key and item[0] <= self.now]
        assert self.promises.claim(key, self.now) == bool(mine)
        if mine:
            self.model.remove(mine[0])

    @invariant()
    def keeps_just_the_places_whose_time_has_come(self):
        assert self.promises.due(self.now) == sum(when <= self.now for when, _key in self.model)
        assert len(self.promises) == len(self.model)

    @precondition(lambda self: self.model)
    @invariant()
    def a_newcomer_leaves_room_for_them(self):
        kept = self.promises.kept_free(16, self.now)
        assert not self.promises.admits(16 - kept, 16, 0, self.now)
        assert self.promises.admits(15 - kept, 16, 0, self.now)

    @invariant()
    def keeps_few_places_for_those_whose_time_comes_next(self):
        due = self.promises.due(self.now)
        assert self.promises.kept_free(16, self.now) - due == min(2, len(self.model) - due)


TestPromisesAgainstModel = PromisesAgainstModel.TestCase


@given(depth=st.integers(0, 20), slots=st.integers(0, 20), due=st.integers(0, 20))
def test_slots_do_not_idle_for_the_sake_of_promises_and_the_queue_never_overflows(depth, slots, due):
    promises = Promises()
    for number in range(due):
        promises.promise(number, 0.0, 0.001)
    admitted = promises.admits(depth, 10, slots, 1.0)
    assert admitted == (depth < 10 and (depth < slots or depth + due < 10))


def test_the_same_words_twice_are_two_promises():
    promises = Promises()
    for _twice in range(2):
        promises.promise("same", 0.0, 0.1)
    claims = Counter(promises.claim("same", 1.0) for _thrice in range(3))
    assert claims == {True: 2, False: 1}


def test_obedient_clients_get_in_whatever_newcomers_do():
    """A place comes free each second; each refused client comes when told, and every second three newcomers come."""
    promises, capacity, depth = Promises(), 5, 5
    told: dict[int, list[str]] = {}
    got_in = refused_again = number = 0
    for second in range(200):
        now = float(second)
        depth -= 1
        for client in told.pop(second, ()):
            if promises.claim(client, now) and depth < capacity:
                depth, got_in = depth + 1, got_in + 1
            else:
                refused_again += 1
        for _newcomer in range(3):
            number += 1
            if promises.admits(depth, capacity, 1, now):
                depth += 1
            else:
                wait = promises.promise(f"client {number}", now, 1.0)
                told.setdefault(int(now + wait), []).append(f"client {number}")
    assert refused_again == 0
    assert got_in > 150


@given(slots=st.integers(1, 8), newcomers_first=st.booleans(), newcomers=st.integers(2, 5))
def test_obedient_clients_get_in_though_places_come_free_in_bursts(slots, newcomers_first, newcomers):
    """All slots come free together, once in `slots` ticks; who is refused comes at the very tick that it was told."""
    queue, number = Line(slots), count()
    for now in range(1, 300):
        if now % slots == 0:
            queue.depth -= min(queue.depth, slots)
        coming = queue.told.pop(now, [])
        for client in () if newcomers_first else coming:
            queue.come_back(client, now)
        for _newcomer in range(newcomers):
            queue.come(next(number), now)
        for client in coming if newcomers_first else ():
            queue.come_back(client, now)
    assert queue.got_in > 200
    assert queue.refused_again <= slots  # the queue was full before anybody was promised anything


class Line:
    """Places for 64; one of them comes free each tick on average."""

    def __init__(self, slots: int) -> None:
        self.promises = Promises()
        self.told: dict[int, list[int]] = {}
        self.slots = slots
        self.depth = self.got_in = self.refused_again = 0

    def come(self, client: int, now: int) -> None:
        """A newcomer."""
        if self.promises.admits(self.depth, 64, self.slots, now):
            self.depth += 1
        else:
            wait = self.promises.promise(client, now, MARGIN)
            self.told.setdefault(math.ceil(now + wait), []).append(client)

    def come_back(self, client: int, now: int) -> None:
        """One who was told to."""
        if self.promises.claim(client, now) and self.depth < 64:
            self.depth, self.got_in = self.depth + 1, self.got_in + 1
        else:
            self.refused_again += 1
