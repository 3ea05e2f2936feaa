"""When a node's next heartbeat is due: those of many nodes are spread evenly over the interval. Pure.

Nodes that start together, after a power cut or with a new release, would else report together for ever. Each has its
own place in the interval, told by its name, and comes to it within one and a half intervals.
"""

import zlib

MANY = 16
"""Fewer nodes than this are let alone."""
SHARE = 0.8
"""No heartbeat is put off beyond this part of the time after which the node would count as offline."""


def next_heartbeat_ms(node_id: str, interval_ms: int, timeout_ms: int, now_ms: int, nodes: int) -> int:
    """Milliseconds until the next heartbeat of a node that wants to send one every `interval_ms`."""
    if nodes < MANY:
        return interval_ms
    place = zlib.crc32(node_id.encode()) % interval_ms
    wait_ms = (place - now_ms) % interval_ms
    if wait_ms < interval_ms / 2:
        wait_ms += interval_ms
    if wait_ms > interval_ms and wait_ms > SHARE * timeout_ms:
        return max(1, min(interval_ms, wait_ms - interval_ms // 2))
    return wait_ms
