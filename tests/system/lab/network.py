"""Access to the network of a container from outside.

A socket stays in the network namespace in which it was created. A thread enters the namespace of the container, creates
the socket and ends; the test process then connects the socket.
"""

import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor

CLONE_NEWNET = 0x40000000


def socket_in_network_of(pid: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return an unconnected socket (TCP, or UDP with SOCK_DGRAM) in the network of process `pid`. Raises OSError."""
    # Each call uses a new thread, so that no thread continues in the wrong network.
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
