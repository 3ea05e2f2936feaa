"""Ports are unique and stable, and the holder of a port in use is reported."""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch.ports import (
    RANGE,
    PortInUse,
    Ports,
    holder_of,
    in_use_failure,
    is_free,
    listening_inodes,
)
from tests.unit.engine_provisioner.pools import pool

IDS = ("a", "b", "c", "d")


@given(
    st.dictionaries(st.sampled_from(IDS), st.integers(18078, 18085)),
    st.dictionaries(st.sampled_from(IDS), st.integers(18078, 18085), max_size=2),
    st.sets(st.integers(18080, 18086)),
)
def test_ports_are_unique_and_free(previous: dict[str, int], configured: dict[str, int], used: set[int]) -> None:
    if len(set(configured.values())) < len(configured):
        return
    ports = Ports([pool(id=each, ports=[configured[each]] if each in configured else []) for each in IDS], previous)
    claimed = {}
    for each in IDS:
        try:
            claimed[each] = ports.claim(each, lambda port: port not in used)
        except PortInUse:
            assert configured[each] in used
    assert len(set(claimed.values())) == len(claimed)
    assert not set(claimed.values()) & used
    assert all(claimed[each] == port for each, port in configured.items() if each in claimed)


def test_port_survives_restart_and_reordering_of_the_file() -> None:
    first = Ports([pool(id="a"), pool(id="b")], {})
    ports = {each: first.claim(each, lambda _port: True) for each in ("a", "b")}
    second = Ports([pool(id="b"), pool(id="new"), pool(id="a")], ports)
    assert {each: second.claim(each, lambda _port: True) for each in ("b", "a")} == ports


def test_full_range_is_reported() -> None:
    with pytest.raises(ProvisioningFailure, match=f"no free port on 127.0.0.1 from {RANGE.start} to"):
        Ports([pool()], {}).claim("default", lambda _port: False)


def test_configured_port_in_use_is_reported_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(PortInUse):
            Ports([pool(ports=[port])], {}).claim("default", is_free)
        assert f"pid {os.getpid()}" in str(in_use_failure(port, holder_of(port)))
    assert is_free(port)
    assert holder_of(port) is None


def test_only_listeners_on_the_port_are_found() -> None:
    row = "   0: 0100007F:46A0 00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0"
    table = "\n".join(["  sl  local_address", row.format("0A"), row.format("01")])
    assert list(listening_inodes(table, 0x46A0)) == ["socket:[4711]"]
    assert list(listening_inodes(table, 80)) == []
