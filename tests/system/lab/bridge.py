"""A local network between machines: a bridge with a cable to each machine. Cables can lose packets.

The bridge is in the network namespace of a process that waits for the end of its standard input. When the run ends for
any reason, that process ends, and the kernel removes bridge and cables. They have no names on the host, so that runs do
not conflict.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.system.lab.container import Container

SUBNET = "10.77.0"
MAX_CABLES = 254
START = "ip link add bridge type bridge && ip link set bridge up && echo up && exec cat"
DROP_ALL, DEFAULT_QUEUE = "blackhole", "noqueue"
"""Queueing disciplines of every kernel. The first drops all packets and reports success; the second is the default."""


@dataclass(frozen=True)
class Cable:
    """A connection between a machine and the bridge.

    `address` belongs to the machine. `bridge` and `machine` are pids in the network namespaces of the two ends.
    """

    address: str
    port: str
    bridge: int
    machine: int

    def cut(self) -> None:
        """Drop all packets silently, as after a failure of a switch."""
        self.drop_incoming()
        self.drop_outgoing()

    def drop_incoming(self) -> None:
        """Drop all packets to the machine."""
        _queue(self.bridge, self.port, DROP_ALL)

    def drop_outgoing(self) -> None:
        """Drop all packets from the machine."""
        _queue(self.machine, "host0", DROP_ALL)

    def repair(self) -> None:
        """Stop dropping packets."""
        _queue(self.bridge, self.port, DEFAULT_QUEUE)
        _queue(self.machine, "host0", DEFAULT_QUEUE)


@dataclass
class Bridge:
    """A bridge in the network namespace of process `pid`. `cables` counts all cables so far."""

    pid: int
    cables: int = 0

    def connect(self, container: Container) -> Cable:
        """Connect a machine and assign its address. Raises CalledProcessError."""
        self.cables += 1
        assert self.cables <= MAX_CABLES, "the network is full"
        cable = Cable(f"{SUBNET}.{self.cables}", f"port{self.cables}", self.pid, container.init)
        _ip(self.pid, f"link add {cable.port} type veth peer name host0 netns {container.init}")
        _ip(self.pid, f"link set {cable.port} master bridge up")
        _ip(container.init, f"address add {cable.address}/24 dev host0")
        _ip(container.init, "link set host0 up")
        return cable


@contextmanager
def bridge() -> Iterator[Bridge]:
    """Run a bridge without cables for the duration of the block. A cable is removed with the bridge or its machine."""
    words = ["unshare", "--net", "sh", "-c", START]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "up\n":
            raise OSError("cannot create a bridge in a new network namespace")
        yield Bridge(process.pid)
        # Leaving the inner block closes its standard input and waits for its end.


def _ip(pid: int, words: str) -> None:
    _in_network(pid, "ip", *words.split())


def _queue(pid: int, device: str, kind: str) -> None:
    _in_network(pid, "tc", "qdisc", "replace", "dev", device, "root", kind)


def _in_network(pid: int, *command: str) -> None:
    words = ["nsenter", "--target", str(pid), "--net", *command]
    subprocess.run(words, check=True, capture_output=True, text=True)
