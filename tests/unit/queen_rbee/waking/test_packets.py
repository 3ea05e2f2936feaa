"""Magic packets have the form that network interfaces look for, and go where the node is."""

import socket

import pytest
import trio

from llama_orch.addresses import Host
from llama_orch.contracts.nodes import NodeView
from llama_orch.contracts.wake import Wake
from queen_rbee.waking.packets import magic_packet, send, targets
from tests.unit.queen_rbee.fleet_rig import FleetRig

MAC = "52:54:00:12:34:56"
WAKE = Wake(macs=[MAC], broadcast="192.0.2.255")


async def node(**changes) -> NodeView:
    rig = FleetRig()
    await rig.join("n1", **{"wake": WAKE, "address": "http://192.0.2.7:9200", **changes})
    return rig.fleet.node("n1")


def test_magic_packet_is_six_ff_and_sixteen_addresses() -> None:
    packet = magic_packet(MAC)
    assert packet[:6] == b"\xff" * 6
    assert packet[6:] == bytes.fromhex("525400123456") * 16
    assert len(packet) == 102


async def test_packets_go_to_broadcast_and_node_address() -> None:
    assert targets(await node(), None) == [Host("192.0.2.255", 9), Host("192.0.2.7", 9)]


@pytest.mark.parametrize("address", ["http://gpu-1:9200", "http://[2001:db8::7]:9200", "http://127.0.0.1:9200"])
async def test_only_broadcast_without_ipv4_address(address: str) -> None:
    assert targets(await node(address=address, wake=Wake(macs=[MAC])), None) == [Host("255.255.255.255", 9)]


async def test_configured_address_replaces_all_others() -> None:
    assert targets(await node(), Host("198.51.100.1", 4009)) == [Host("198.51.100.1", 4009)]


async def test_one_packet_arrives_for_each_mac() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        other = "52:54:00:65:43:21"
        await send([MAC, other], Host("127.0.0.1", receiver.getsockname()[1]))
        receiver.settimeout(5)
        received = await trio.to_thread.run_sync(lambda: {receiver.recv(200) for _each in range(2)})
    assert received == {magic_packet(MAC), magic_packet(other)}
