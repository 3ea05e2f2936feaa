"""Heartbeats of many nodes are spread over the interval, however they started; those of a few are let alone."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.fleet.nodes import MANY, SHARE, next_heartbeat_ms

INTERVALS = st.integers(min_value=1000, max_value=60_000)


@given(INTERVALS, st.integers(0, 1 << 40), st.integers(0, MANY - 1))
def test_a_few_nodes_keep_their_own_interval(interval, now, nodes):
    assert next_heartbeat_ms("n", interval, 300_000, now, nodes) == interval


@given(st.text(min_size=1), INTERVALS, st.integers(5000, 300_000), st.integers(0, 1 << 40))
def test_no_heartbeat_is_put_off_so_far_that_its_node_would_count_as_offline(node, interval, timeout, now):
    wait = next_heartbeat_ms(node, interval, timeout, now, 1000)
    assert 1 <= wait <= 1.5 * interval
    assert wait <= max(interval, SHARE * timeout)


@given(st.text(min_size=1), INTERVALS, st.integers(0, 1 << 40))
def test_after_its_first_heartbeat_a_node_has_its_place_and_sends_one_each_interval(node, interval, now):
    first = now + next_heartbeat_ms(node, interval, 10 * interval, now, 1000)
    assert next_heartbeat_ms(node, interval, 10 * interval, first, 1000) == interval


def test_a_thousand_nodes_that_start_at_once_come_evenly_from_then_on():
    waits = [next_heartbeat_ms(f"gpu-node-{n}", 10_000, 30_000, 123_456, 1000) for n in range(1000)]
    seconds = Counter((123_456 + wait) % 10_000 // 1000 for wait in waits)
    assert len(seconds) == 10
    assert max(seconds.values()) < 2 * min(seconds.values())
