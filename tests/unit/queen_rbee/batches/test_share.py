"""Batches get the slots that others leave."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.batches.share import Load, lines_to_start

COUNT = st.integers(0, 100)
LOADS = st.builds(Load, slots=COUNT, free=COUNT, waiting=COUNT, ours=COUNT, most=COUNT)


@given(LOADS)
def test_one_line_is_always_under_way(load: Load):
    assert load.ours or lines_to_start(load) >= 1


@given(LOADS)
def test_no_more_start_while_others_wait(load: Load):
    if load.ours and load.waiting:
        assert lines_to_start(load) == 0


@given(LOADS)
def test_a_slot_of_several_stays_free(load: Load):
    started = lines_to_start(load)
    assert started <= 1 or started < load.free or load.slots <= 1
    assert started <= 1 or load.ours + started <= load.most


def test_a_single_slot_is_used():
    assert lines_to_start(Load(slots=1, free=1, waiting=0, ours=0, most=25)) == 1
