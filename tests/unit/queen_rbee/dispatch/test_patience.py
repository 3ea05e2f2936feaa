"""A lane that nothing serves is given up after its limit, and only then."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.dispatch.patience import LATEST_S, SOONEST_S, Patience

LANE = "lane"


def test_task_of_unserved_lane_is_given_up_after_the_limit():
    patience: Patience[str] = Patience(60.0)
    patience.look({LANE: False}, 100.0)
    patience.look({LANE: False}, 130.0)
    assert patience.until(LANE, submitted_at=0.0) == 160.0
    assert patience.until(LANE, submitted_at=120.0) == 180.0, "a later one has waited for less time"


def test_lane_that_was_served_in_between_begins_anew():
    patience: Patience[str] = Patience(60.0)
    for served, now in ((False, 0.0), (True, 50.0), (False, 55.0)):
        patience.look({LANE: served}, now)
    assert patience.until(LANE, 0.0) == 115.0


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), st.booleans()), st.floats(0, 100)), max_size=20))
def test_served_and_empty_lanes_are_never_given_up(looks):
    patience: Patience[str] = Patience(1.0)
    now = 0.0
    for lanes, later_s in looks:
        now += later_s
        patience.look(lanes, now)
        assert set(patience.unserved) == {lane for lane, served in lanes.items() if not served}
        for lane in "abc":
            assert (patience.until(lane, 0.0) == float("inf")) == lanes.get(lane, True)


@given(st.floats(0, 1e6))
def test_time_to_come_back_grows_with_the_outage(lasted_s):
    patience: Patience[str] = Patience(60.0)
    patience.look({LANE: False}, 0.0)
    assert SOONEST_S <= patience.retry_s(LANE, lasted_s) <= LATEST_S
    if SOONEST_S <= lasted_s <= LATEST_S:
        assert patience.retry_s(LANE, lasted_s) == lasted_s
