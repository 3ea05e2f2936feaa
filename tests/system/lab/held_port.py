"""Hold a listening socket of a machine's systemd open, as a child of systemd does between its fork and its exec."""

import ctypes
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PIDFD_GETFD = 438
LISTEN = "0A"


@contextmanager
def held_port(init: int, port: int) -> Iterator[socket.socket]:
    """Hold the socket on which the process `init` listens on TCP `port`. Raises StopIteration if there is none."""
    wanted = _inodes(init, port)
    links = {int(path.name): os.readlink(path) for path in Path(f"/proc/{init}/fd").iterdir()}
    number = next(fd for fd, link in links.items() if link in wanted)
    pidfd = os.pidfd_open(init)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copy = libc.syscall(PIDFD_GETFD, pidfd, number, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(fileno=copy) as held:
        yield held


def _inodes(pid: int, port: int) -> set[str]:
    """Return the sockets that listen on `port` in the network of a process, as /proc names them."""
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = re.split(r"\s+", line.strip())
        if fields[3] == LISTEN and fields[1].endswith(f":{port:04X}"):
            found.add(f"socket:[{fields[9]}]")
    return found
