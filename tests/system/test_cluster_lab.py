"""Tests of the network between test machines."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.lab.bridge import Bridge, Cable, bridge
from tests.system.lab.container import Container, booted
from tests.system.lab.network import socket_in_network_of
from tests.system.lab.package import ROOT
from tests.system.lab.rootfs import SUITES
from tests.system.lab.waiting import until

PORT = 5000
TIMEOUT_S = 0.3
"""How long to wait for a packet that should be dropped. Other packets arrive within a millisecond."""

CONNECT_AND_WAIT = """
from tests.system.lab.bridge import bridge
with bridge() as network:
    print(network.pid, flush=True)
    input()
"""


@dataclass(frozen=True)
class Station:
    """A machine on the bridge."""

    container: Container
    cable: Cable

    def open(self, kind: socket.SocketKind) -> socket.socket:
        """Return a socket in the network of the machine."""
        opened = socket_in_network_of(self.container.init, kind)
        opened.settimeout(TIMEOUT_S)
        return opened

    def receives_from(self, other: "Station") -> bool:
        """Whether a datagram from the other machine arrives."""
        with self.open(socket.SOCK_DGRAM) as receiver, other.open(socket.SOCK_DGRAM) as sender:
            receiver.bind((self.cable.address, PORT))
            sender.sendto(b"hello", (self.cable.address, PORT))
            try:
                return receiver.recvfrom(16) == (b"hello", (other.cable.address, sender.getsockname()[1]))
            except TimeoutError:
                return False

    def reaches(self, other: "Station") -> bool:
        """Whether a connection to the other machine can be established."""
        with other.open(socket.SOCK_STREAM) as listener, self.open(socket.SOCK_STREAM) as caller:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((other.cable.address, PORT))
            listener.listen()
            return caller.connect_ex((other.cable.address, PORT)) == 0


@pytest.fixture(scope="module")
def network() -> Iterator[Bridge]:
    """A network for the module's machines."""
    with bridge() as network:
        yield network


@pytest.fixture(scope="module")
def stations(network: Bridge) -> Iterator[list[Station]]:
    """Three machines on the bridge."""
    with ExitStack() as machines:
        containers = [machines.enter_context(booted(SUITES[0], f"station-{number}")) for number in range(3)]
        yield [Station(container, network.connect(container)) for container in containers]


@pytest.fixture
def three_stations(stations: list[Station], undo: Callable[..., object]) -> list[Station]:
    """Three machines that receive each other's packets. Their cables are repaired when the test ends."""
    for station in stations:
        undo(station.cable.repair)
    assert lost_pairs(stations) == []
    return stations


def pairs(stations: list[Station]) -> list[tuple[Station, Station]]:
    return [(one, other) for one in stations for other in stations if one is not other]


def lost_pairs(stations: list[Station]) -> list[tuple[str, str]]:
    """Return the pairs of sender and receiver between which datagrams are lost."""
    return [
        (sender.cable.address, receiver.cable.address)
        for sender, receiver in pairs(stations)
        if not receiver.receives_from(sender)
    ]


def test_each_machine_reaches_each_other(three_stations: list[Station]) -> None:
    assert len({station.cable.address for station in three_stations}) == 3
    assert all(one.reaches(other) for one, other in pairs(three_stations))


def test_machine_is_reachable_after_cable_is_repaired(three_stations: list[Station]) -> None:
    isolated, *others = three_stations
    isolated.cable.cut()
    isolated.cable.cut()
    for other in others:
        assert (other.reaches(isolated), isolated.reaches(other)) == (False, False)
        assert (other.receives_from(isolated), isolated.receives_from(other)) == (False, False)
    assert lost_pairs(others) == [], "packets between the others arrive"

    isolated.cable.repair()
    assert lost_pairs(three_stations) == []
    assert all(one.reaches(other) for one, other in pairs(three_stations))


def test_cable_can_drop_incoming_packets_only(three_stations: list[Station]) -> None:
    without_incoming, *others = three_stations
    without_incoming.cable.drop_incoming()
    for other in others:
        assert (other.receives_from(without_incoming), without_incoming.receives_from(other)) == (True, False)
        assert not without_incoming.reaches(other), "a connection needs both directions"
    without_incoming.cable.repair()
    assert lost_pairs(three_stations) == []


def test_cable_can_drop_outgoing_packets_only(three_stations: list[Station]) -> None:
    without_outgoing, *others = three_stations
    without_outgoing.cable.drop_outgoing()
    for other in others:
        assert (other.receives_from(without_outgoing), without_outgoing.receives_from(other)) == (False, True)
        assert not other.reaches(without_outgoing), "a connection needs both directions"
    without_outgoing.cable.repair()
    assert lost_pairs(three_stations) == []


def test_connection_continues_after_cable_is_repaired(three_stations: list[Station]) -> None:
    one, other, _ = three_stations
    with other.open(socket.SOCK_STREAM) as listener, one.open(socket.SOCK_STREAM) as caller:
        listener.bind((other.cable.address, PORT + 1))
        listener.listen()
        caller.connect((other.cable.address, PORT + 1))
        accepted, _peer = listener.accept()
        with accepted:
            one.cable.cut()
            caller.sendall(b"late")
            accepted.settimeout(TIMEOUT_S)
            with pytest.raises(TimeoutError):
                accepted.recv(16)
            one.cable.repair()
            accepted.settimeout(30)
            assert accepted.recv(16) == b"late"


def test_two_networks_are_isolated(three_stations: list[Station]) -> None:
    with bridge() as elsewhere, booted(SUITES[0], "outsider") as container:
        outsider = Station(container, elsewhere.connect(container))
        assert outsider.cable.address == three_stations[0].cable.address
        assert not outsider.reaches(three_stations[1])
        assert lost_pairs(three_stations) == []


def test_killed_run_leaves_no_network() -> None:
    before = interfaces()
    run = subprocess.Popen(
        [sys.executable, "-c", CONNECT_AND_WAIT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    namespace = Path(f"/proc/{run.stdout.readline().strip()}/ns/net")
    assert namespace.exists()
    run.kill()
    run.communicate()
    until(lambda: not namespace.exists(), "the process of the network to end")
    assert interfaces() == before


def test_network_is_removed_at_end_of_block() -> None:
    before = interfaces()
    with bridge() as network:
        process = Path(f"/proc/{network.pid}")
        assert process.exists()
    assert not process.exists()
    assert interfaces() == before


def interfaces() -> str:
    """Return the host's interfaces and named network namespaces."""
    return "".join(
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
        for words in (("-oneline", "link"), ("netns", "list"))
    )
