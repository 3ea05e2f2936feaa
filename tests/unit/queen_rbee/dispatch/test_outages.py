"""Tasks of an unserved lane are given up after the limit, and not earlier."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.dispatch.outages import MAX_RETRY_S, MIN_RETRY_S, Outages

LANE = "lane"


def test_unserved_task_is_given_up_after_the_limit():
    outages: Outages[str] = Outages(60.0)
    outages.update({LANE: False}, 100.0)
    outages.update({LANE: False}, 130.0)
    assert outages.give_up_at(LANE, submitted_at=0.0) == 160.0
    assert outages.give_up_at(LANE, submitted_at=120.0) == 180.0, "a later task has waited for less time"


def test_served_lane_restarts_the_limit():
    outages: Outages[str] = Outages(60.0)
    for served, now in ((False, 0.0), (True, 50.0), (False, 55.0)):
        outages.update({LANE: served}, now)
    assert outages.give_up_at(LANE, 0.0) == 115.0


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), st.booleans()), st.floats(0, 100)), max_size=20))
def test_served_and_empty_lanes_are_never_given_up(updates):
    outages: Outages[str] = Outages(1.0)
    now = 0.0
    for lanes, later_s in updates:
        now += later_s
        outages.update(lanes, now)
        assert set(outages.unserved) == {lane for lane, served in lanes.items() if not served}
        for lane in "abc":
            assert (outages.give_up_at(lane, 0.0) == float("inf")) == lanes.get(lane, True)


@given(st.floats(0, 1e6))
def test_retry_time_grows_with_the_outage(lasted_s):
    outages: Outages[str] = Outages(60.0)
    outages.update({LANE: False}, 0.0)
    assert MIN_RETRY_S <= outages.retry_s(LANE, lasted_s) <= MAX_RETRY_S
    if MIN_RETRY_S <= lasted_s <= MAX_RETRY_S:
        assert outages.retry_s(LANE, lasted_s) == lasted_s
