"""The network of a cluster's machines: what the cluster's tests take for granted of it."""

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
PATIENCE_S = 0.3
"""How long to listen for what shall not come; what comes at all comes within a millisecond."""

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
        """A socket of the machine's."""
        opened = socket_in_network_of(self.container.init, kind)
        opened.settimeout(PATIENCE_S)
        return opened

    def hears(self, other: "Station") -> bool:
        """Whether a datagram of the other machine's arrives."""
        with self.open(socket.SOCK_DGRAM) as ear, other.open(socket.SOCK_DGRAM) as mouth:
            ear.bind((self.cable.address, PORT))
            mouth.sendto(b"hello", (self.cable.address, PORT))
            try:
                return ear.recvfrom(16) == (b"hello", (other.cable.address, mouth.getsockname()[1]))
            except TimeoutError:
                return False

    def reaches(self, other: "Station") -> bool:
        """Whether a connection to the other machine is established."""
        with other.open(socket.SOCK_STREAM) as listener, self.open(socket.SOCK_STREAM) as caller:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((other.cable.address, PORT))
            listener.listen()
            return caller.connect_ex((other.cable.address, PORT)) == 0


@pytest.fixture(scope="module")
def network() -> Iterator[Bridge]:
    """A network for the module's machines."""
    with bridge() as made:
        yield made


@pytest.fixture(scope="module")
def stations(network: Bridge) -> Iterator[list[Station]]:
    """Three machines on the bridge."""
    with ExitStack() as machines:
        containers = [machines.enter_context(booted(SUITES[0], f"station-{number}")) for number in range(3)]
        yield [Station(container, network.connect(container)) for container in containers]


@pytest.fixture
def trio(stations: list[Station], undo: Callable[..., object]) -> list[Station]:
    """The three, which all know of one another, and whose cables are sound again when the test ends."""
    for station in stations:
        undo(station.cable.mend)
    assert unheard(stations) == []
    return stations


def pairs(stations: list[Station]) -> list[tuple[Station, Station]]:
    return [(one, other) for one in stations for other in stations if one is not other]


def unheard(stations: list[Station]) -> list[tuple[str, str]]:
    """Whose datagrams do not arrive where."""
    return [
        (sender.cable.address, receiver.cable.address)
        for sender, receiver in pairs(stations)
        if not receiver.hears(sender)
    ]


def test_each_machine_reaches_each(trio: list[Station]) -> None:
    assert len({station.cable.address for station in trio}) == 3
    assert all(one.reaches(other) for one, other in pairs(trio))


def test_a_machine_that_is_cut_off_is_reached_again_when_its_cable_is_mended(trio: list[Station]) -> None:
    lone, *others = trio
    lone.cable.cut()
    lone.cable.cut()
    for other in others:
        assert (other.reaches(lone), lone.reaches(other)) == (False, False)
        assert (other.hears(lone), lone.hears(other)) == (False, False)
    assert unheard(others) == [], "the others lose nothing"

    lone.cable.mend()
    assert unheard(trio) == []
    assert all(one.reaches(other) for one, other in pairs(trio))


def test_a_cable_can_lose_only_what_comes(trio: list[Station]) -> None:
    deaf, *others = trio
    deaf.cable.lose_what_comes()
    for other in others:
        assert (other.hears(deaf), deaf.hears(other)) == (True, False)
        assert not deaf.reaches(other), "a connection takes both ways"
    deaf.cable.mend()
    assert unheard(trio) == []


def test_a_cable_can_lose_only_what_goes(trio: list[Station]) -> None:
    mute, *others = trio
    mute.cable.lose_what_goes()
    for other in others:
        assert (other.hears(mute), mute.hears(other)) == (False, True)
        assert not other.reaches(mute), "a connection takes both ways"
    mute.cable.mend()
    assert unheard(trio) == []


def test_a_connection_that_was_cut_goes_on_when_the_cable_is_mended(trio: list[Station]) -> None:
    one, other, _ = trio
    with other.open(socket.SOCK_STREAM) as listener, one.open(socket.SOCK_STREAM) as caller:
        listener.bind((other.cable.address, PORT + 1))
        listener.listen()
        caller.connect((other.cable.address, PORT + 1))
        accepted, _peer = listener.accept()
        with accepted:
            one.cable.cut()
            caller.sendall(b"late")
            accepted.settimeout(PATIENCE_S)
            with pytest.raises(TimeoutError):
                accepted.recv(16)
            one.cable.mend()
            accepted.settimeout(30)
            assert accepted.recv(16) == b"late"


def test_two_networks_have_nothing_to_do_with_each_other(trio: list[Station]) -> None:
    with bridge() as elsewhere, booted(SUITES[0], "stranger") as container:
        stranger = Station(container, elsewhere.connect(container))
        assert stranger.cable.address == trio[0].cable.address
        assert not stranger.reaches(trio[1])
        assert unheard(trio) == []


def test_no_network_is_left_of_a_run_that_was_killed() -> None:
    before = interfaces()
    run = subprocess.Popen(
        [sys.executable, "-c", CONNECT_AND_WAIT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    namespace = Path(f"/proc/{run.stdout.readline().strip()}/ns/net")
    assert namespace.exists()
    run.kill()
    run.communicate()
    until(lambda: not namespace.exists(), "the network's process to end")
    assert interfaces() == before


def test_a_network_ends_with_its_block_and_leaves_this_host_as_it_was() -> None:
    before = interfaces()
    with bridge() as network:
        process = Path(f"/proc/{network.pid}")
        assert process.exists()
    assert not process.exists()
    assert interfaces() == before


def interfaces() -> str:
    """This host's own interfaces and named network namespaces."""
    return "".join(
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
        for words in (("-oneline", "link"), ("netns", "list"))
    )
