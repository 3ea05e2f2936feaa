"""The port of each engine: configured by the pool, or chosen from a range and kept as long as possible."""

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.spec.pool_spec import Pool

RANGE = range(18080, 18480)
TCP_LISTEN = "0A"
IsFree = Callable[[int], bool]


class PortInUse(Exception):
    """The configured port of a pool is in use."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is in use")
        self.port = port


class Ports:
    """The ports of all pools, each used once. `previous` are the ports of engines from an earlier run.

    Not thread-safe: concurrent claims could get the same port.
    """

    def __init__(self, pools: list[Pool], previous: Mapping[str, int]) -> None:
        self._assign(pools, previous)

    def reassign(self, pools: list[Pool]) -> None:
        """Follow a change of the pools. A port stays with its pool if the pools file does not say otherwise."""
        self._assign(pools, self._claimed)

    def _assign(self, pools: list[Pool], previous: Mapping[str, int]) -> None:
        self._claimed = {pool.id: pool.ports[0] for pool in pools if pool.ports}
        self._configured = frozenset(self._claimed)
        taken = set(self._claimed.values())
        for pool in pools:
            port = previous.get(pool.id)
            if port is not None and pool.id not in self._claimed and port in RANGE and port not in taken:
                self._claimed[pool.id] = port
                taken.add(port)

    def claim(self, pool_id: str, is_free: IsFree) -> int:
        """Return the pool's port, for which `is_free` is true.

        Raises PortInUse for a configured port, ProvisioningFailure if the whole range is in use.
        """
        if pool_id in self._configured:
            port = self._claimed[pool_id]
            if not is_free(port):
                raise PortInUse(port)
            return port
        for port in self._candidates(pool_id):
            if is_free(port):
                self._claimed[pool_id] = port
                return port
        message = f"no free port on 127.0.0.1 from {RANGE.start} to {RANGE.stop - 1}"
        raise ProvisioningFailure(message, "Set a free port with the key ports.")

    def _candidates(self, pool_id: str) -> Iterator[int]:
        own = self._claimed.get(pool_id)
        if own is not None:
            yield own
        others = {port for owner, port in self._claimed.items() if owner != pool_id}
        yield from (port for port in RANGE if port != own and port not in others)


def in_use_failure(port: int, holder: str | None) -> ProvisioningFailure:
    """Return the failure for a port that is in use, by `holder` if known."""
    by = f"by {holder}" if holder else f"ss -ltnp 'sport = :{port}' shows by whom"
    message = f"port {port} on 127.0.0.1 is already in use ({by})"
    return ProvisioningFailure(message, "Stop the other program, or set another port with the key ports.")


def is_free(port: int) -> bool:
    """Whether an engine can listen on `port` now. Checked here because an engine with SO_REUSEPORT would not notice."""
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


def holder_of(port: int) -> str | None:
    """Return the program that listens on `port`, as `NAME, pid N`, or None without permission. Blocks on /proc."""
    inodes = set(listening_inodes(_read(Path("/proc/net/tcp")) + _read(Path("/proc/net/tcp6")), port))
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(descriptor.readlink().name in inodes for descriptor in (process / "fd").iterdir()):
                return f"{_read(process / 'comm').strip()}, pid {process.name}"
        except OSError:  # it has ended, or belongs to another user
            continue
    return None


def listening_inodes(table: str, port: int) -> Iterator[str]:
    """Yield `socket:[inode]` for each listener on `port` in the text of /proc/net/tcp, see proc_net_tcp(5)."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[3] == TCP_LISTEN and fields[1].endswith(f":{port:04X}"):
            yield f"socket:[{fields[9]}]"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
