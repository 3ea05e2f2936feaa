"""Heartbeats of many nodes are spread evenly over the interval; those of a few nodes are not delayed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.fleet.nodes import MAX_DELAY_SHARE, SPREAD_MIN_NODES, next_heartbeat_ms

INTERVALS = st.integers(min_value=1000, max_value=60_000)


@given(INTERVALS, st.integers(0, 1 << 40), st.integers(0, SPREAD_MIN_NODES - 1))
def test_few_nodes_keep_their_interval(interval, now, nodes):
    assert next_heartbeat_ms("n", interval, 300_000, now, nodes) == interval


@given(st.text(min_size=1), INTERVALS, st.integers(5000, 300_000), st.integers(0, 1 << 40))
def test_heartbeat_is_not_delayed_beyond_timeout(node, interval, timeout, now):
    wait = next_heartbeat_ms(node, interval, timeout, now, 1000)
    assert 1 <= wait <= 1.5 * interval
    assert wait <= max(interval, MAX_DELAY_SHARE * timeout)


@given(st.text(min_size=1), INTERVALS, st.integers(0, 1 << 40))
def test_node_keeps_interval_after_first_heartbeat(node, interval, now):
    first = now + next_heartbeat_ms(node, interval, 10 * interval, now, 1000)
    assert next_heartbeat_ms(node, interval, 10 * interval, first, 1000) == interval


def test_heartbeats_of_many_nodes_are_spread_evenly():
    waits = [next_heartbeat_ms(f"gpu-node-{n}", 10_000, 30_000, 123_456, 1000) for n in range(1000)]
    seconds = Counter((123_456 + wait) % 10_000 // 1000 for wait in waits)
    assert len(seconds) == 10
    assert max(seconds.values()) < 2 * min(seconds.values())
