"""Which port each engine listens on: the pool's own, or one of a range that stays the same as long as it can."""

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.spec.pool_spec import Pool

RANGE = range(18080, 18480)
TCP_LISTEN = "0A"
IsFree = Callable[[int], bool]


class Taken(Exception):
    """The configured port of a pool is in use."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is in use")
        self.port = port


class Ports:
    """The ports of all pools: no two claim the same. `remembered` are those of engines from an earlier run.

    Belongs to the event loop: claims that ran beside each other could agree on a port.
    """

    def __init__(self, pools: list[Pool], remembered: Mapping[str, int]) -> None:
        self._claimed = {pool.id: pool.ports[0] for pool in pools if pool.ports}
        self._configured = frozenset(self._claimed)
        taken = set(self._claimed.values())
        for pool in pools:
            port = remembered.get(pool.id)
            if port is not None and pool.id not in self._claimed and port in RANGE and port not in taken:
                self._claimed[pool.id] = port
                taken.add(port)

    def claim(self, pool_id: str, is_free: IsFree) -> int:
        """The pool's port, which `is_free` has found free.

        Raises Taken where the configured port is in use, ProvisioningFailure where the whole range is.
        """
        if pool_id in self._configured:
            port = self._claimed[pool_id]
            if not is_free(port):
                raise Taken(port)
            return port
        for port in self._candidates(pool_id):
            if is_free(port):
                self._claimed[pool_id] = port
                return port
        what = f"no port from {RANGE.start} to {RANGE.stop - 1} is free on 127.0.0.1"
        raise ProvisioningFailure(what, "Give the pool a port of its own with the key ports.")

    def _candidates(self, pool_id: str) -> Iterator[int]:
        mine = self._claimed.get(pool_id)
        if mine is not None:
            yield mine
        others = {port for owner, port in self._claimed.items() if owner != pool_id}
        yield from (port for port in RANGE if port != mine and port not in others)


def taken_failure(port: int, who: str | None) -> ProvisioningFailure:
    """That `port` is in use, by `who` if that is known."""
    known = who or f"see who holds it: ss -ltnp 'sport = :{port}'"
    what = f"port {port} on 127.0.0.1 is already in use ({known})"
    return ProvisioningFailure(what, "Stop the other program, or give the pool another port with the key ports.")


def is_free(port: int) -> bool:
    """Whether an engine could listen on `port` now. An engine that shares ports would not notice that it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def holder(port: int) -> str | None:
    """The program that listens on `port`, as `NAME (pid N)`; None where this user may not know. Blocks on /proc."""
    inodes = set(listening_inodes(_read(Path("/proc/net/tcp")) + _read(Path("/proc/net/tcp6")), port))
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(descriptor.readlink().name in inodes for descriptor in (process / "fd").iterdir()):
                return f"{_read(process / 'comm').strip()}, pid {process.name}"
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return None


def listening_inodes(table: str, port: int) -> Iterator[str]:
    """The `socket:[inode]` of each listener on `port` in the text of /proc/net/tcp, proc_net_tcp(5)."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[3] == TCP_LISTEN and fields[1].endswith(f":{port:04X}"):
            yield f"socket:[{fields[9]}]"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
