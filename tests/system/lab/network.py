"""A client's way into a container's network, without running in the container.

A socket stays in the network namespace that it was made in, whoever uses it. So a thread goes into the container's
network, makes the socket and ends; the test's own process connects it.
"""

import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor

CLONE_NEWNET = 0x40000000


def socket_in_network_of(pid: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """An unconnected socket (TCP, or UDP with SOCK_DGRAM) in the network of process `pid`. Raises OSError."""
    # each call has its own thread, which ends with it: none goes on in the wrong network
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_make, pid, kind).result()


def _make(pid: int, kind: socket.SocketKind) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network of process {pid}")
        return socket.socket(socket.AF_INET, kind)
    finally:
        os.close(namespace)
