"""How the machine is woken is read from /sys, and a machine that could not be woken is recognised."""

from pathlib import Path

import pytest

from llama_orch.contracts.wake import Wake
from pool_managerd.cluster.addressing import wake_of
from pool_managerd.cluster.interfaces import Interface, Unwakeable, interface_with, wake_through
from pool_managerd.settings import PoolManagerSettings

MAC, OTHER = "52:54:00:12:34:56", "52:54:00:65:43:21"
CLOUD = {
    "POOL_MANAGERD_NODE_ID": "n1",
    "ORCHESTRATORD_URL": "http://127.0.0.1:8080",
    "LLORCH_API_TOKEN": "a-token-for-tests-only",
}


def port(net: Path, name: str, mac: str = MAC, wakeup: str | None = "enabled") -> None:
    """Make a physical port; `wakeup` None for one that cannot wake the machine."""
    power = net / name / "device" / "power"
    power.mkdir(parents=True)
    (net / name / "address").write_text(f"{mac}\n")
    if wakeup is not None:
        (power / "wakeup").write_text(f"{wakeup}\n")


def bridge(net: Path, name: str, mac: str, *below: str) -> None:
    (net / name).mkdir()
    (net / name / "address").write_text(f"{mac}\n")
    for lower in below:
        (net / name / f"lower_{lower}").symlink_to(net / lower)


def test_mac_and_broadcast_of_the_interface_are_found(tmp_path: Path) -> None:
    port(tmp_path, "enp3s0")
    found = wake_through(Interface("enp3s0", "192.0.2.255"), tmp_path)
    assert found == Wake(macs=[MAC], broadcast="192.0.2.255")


@pytest.mark.parametrize("wakeup", ["disabled", "", None])
def test_disabled_wake_on_lan_names_the_interface(tmp_path: Path, wakeup: str | None) -> None:
    port(tmp_path, "enp3s0", wakeup=wakeup)
    found = wake_through(Interface("enp3s0"), tmp_path)
    assert isinstance(found, Unwakeable)
    assert "Wake-on-LAN is not enabled on enp3s0" in found.reason


def test_bridge_is_woken_through_its_ports(tmp_path: Path) -> None:
    port(tmp_path, "enp3s0", wakeup="disabled")
    port(tmp_path, "enp4s0", OTHER)
    bridge(tmp_path, "bond0", MAC, "enp3s0", "enp4s0")
    bridge(tmp_path, "br0", MAC, "bond0")
    assert wake_through(Interface("br0"), tmp_path) == Wake(macs=[MAC, OTHER])


def test_at_most_8_macs_are_sent(tmp_path: Path) -> None:
    names = [f"e{number}" for number in range(12)]
    for number, name in enumerate(names):
        port(tmp_path, name, f"52:54:00:00:00:{number:02x}")
    bridge(tmp_path, "br0", MAC, *names)
    found = wake_through(Interface("br0"), tmp_path)
    assert isinstance(found, Wake)
    assert len(found.macs) == 8


def test_loop_of_interfaces_ends(tmp_path: Path) -> None:
    bridge(tmp_path, "br0", MAC, "br1")
    bridge(tmp_path, "br1", OTHER, "br0")
    assert isinstance(wake_through(Interface("br0"), tmp_path), Unwakeable)


@pytest.mark.parametrize("mac", ["00:00:00:00:00:00", "01:00:5e:00:00:01", "80:00:02:08:fe", ""])
def test_interface_without_usable_mac_is_refused(tmp_path: Path, mac: str) -> None:
    port(tmp_path, "ib0", mac)
    found = wake_through(Interface("ib0"), tmp_path)
    assert isinstance(found, Unwakeable)
    assert "no hardware address" in found.reason


def test_interface_is_found_by_its_address() -> None:
    assert interface_with("127.0.0.1") == Interface("lo", None)
    assert interface_with("192.0.2.77") is None


async def test_machine_of_the_queen_cannot_be_woken() -> None:
    found = await wake_of(PoolManagerSettings.load(CLOUD))
    assert found == Unwakeable("the queen runs on this machine, and would sleep with it")


async def test_configured_macs_are_used_unchecked() -> None:
    settings = PoolManagerSettings.load({**CLOUD, "POOL_MANAGERD_WAKE_MACS": f"{MAC.upper()}, {OTHER}"})
    assert await wake_of(settings) == Wake(macs=[MAC, OTHER])
