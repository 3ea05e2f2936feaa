"""A local network between machines: a bridge, and a cable to each, which can lose what it should carry.

The bridge is in the network namespace of a process that waits for the end of its standard input. That comes with the
end of the run, however the run ends, and the kernel takes bridge and cables away with the process: nothing has a name
on this host, so nothing clashes with other runs and nothing is left.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.system.lab.container import Container

SUBNET = "10.77.0"
MOST = 254
START = "ip link add bridge type bridge && ip link set bridge up && echo up && exec cat"
LOSING, SOUND = "blackhole", "noqueue"
"""Queueing disciplines that every kernel has: one loses all that is sent and says that it was sent, the other is the
default of a cable."""


@dataclass(frozen=True)
class Cable:
    """What connects a machine with the bridge, as two processes see its ends; `address` is the machine's own."""

    address: str
    port: str
    bridge: int
    machine: int

    def cut(self) -> None:
        """Carry nothing, and let nobody know: as when a switch dies, or the machine's power."""
        self.lose_what_comes()
        self.lose_what_goes()

    def lose_what_comes(self) -> None:
        """Lose all that is sent to the machine."""
        _queue(self.bridge, self.port, LOSING)

    def lose_what_goes(self) -> None:
        """Lose all that the machine sends."""
        _queue(self.machine, "host0", LOSING)

    def mend(self) -> None:
        """Carry everything again."""
        _queue(self.bridge, self.port, SOUND)
        _queue(self.machine, "host0", SOUND)


@dataclass
class Bridge:
    """The bridge in the network of process `pid`, and how many cables it has had."""

    pid: int
    cables: int = 0

    def connect(self, container: Container) -> Cable:
        """Give a machine its address on the bridge. Raises CalledProcessError."""
        self.cables += 1
        assert self.cables <= MOST, "the network is full"
        cable = Cable(f"{SUBNET}.{self.cables}", f"port{self.cables}", self.pid, container.init)
        _ip(self.pid, f"link add {cable.port} type veth peer name host0 netns {container.init}")
        _ip(self.pid, f"link set {cable.port} master bridge up")
        _ip(container.init, f"address add {cable.address}/24 dev host0")
        _ip(container.init, "link set host0 up")
        return cable


@contextmanager
def bridge() -> Iterator[Bridge]:
    """A bridge without cables, there while the block lasts; cables go with it or with their machine."""
    words = ["unshare", "--net", "sh", "-c", START]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "up\n":
            raise OSError("no bridge can be made in a network namespace of its own")
        yield Bridge(process.pid)
        # leaving the inner block ends its standard input, and waits for it


def _ip(pid: int, words: str) -> None:
    _in_network(pid, "ip", *words.split())


def _queue(pid: int, device: str, kind: str) -> None:
    _in_network(pid, "tc", "qdisc", "replace", "dev", device, "root", kind)


def _in_network(pid: int, *command: str) -> None:
    words = ["nsenter", "--target", str(pid), "--net", *command]
    subprocess.run(words, check=True, capture_output=True, text=True)
