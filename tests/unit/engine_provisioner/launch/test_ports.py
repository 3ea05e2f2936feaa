"""No two pools share a port, a pool keeps its port as long as it can, and who holds a taken one is named."""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch.ports import RANGE, Ports, Taken, holder, is_free, listening_inodes, taken_failure
from tests.unit.engine_provisioner.pools import pool

IDS = ("a", "b", "c", "d")


@given(
    st.dictionaries(st.sampled_from(IDS), st.integers(18078, 18085)),
    st.dictionaries(st.sampled_from(IDS), st.integers(18078, 18085), max_size=2),
    st.sets(st.integers(18080, 18086)),
)
def test_no_two_pools_share_a_port_and_a_taken_one_is_not_used(
    remembered: dict[str, int], configured: dict[str, int], taken: set[int]
) -> None:
    if len(set(configured.values())) < len(configured):
        return
    book = Ports([pool(id=each, ports=[configured[each]] if each in configured else []) for each in IDS], remembered)
    given_out = {}
    for each in IDS:
        try:
            given_out[each] = book.claim(each, lambda port: port not in taken)
        except Taken:
            assert configured[each] in taken
    assert len(set(given_out.values())) == len(given_out)
    assert not set(given_out.values()) & taken
    assert all(given_out[each] == port for each, port in configured.items() if each in given_out)


def test_a_pool_keeps_its_port_over_a_restart_and_over_a_new_order_of_the_file() -> None:
    first = Ports([pool(id="a"), pool(id="b")], {})
    ports = {each: first.claim(each, lambda _port: True) for each in ("a", "b")}
    second = Ports([pool(id="b"), pool(id="new"), pool(id="a")], ports)
    assert {each: second.claim(each, lambda _port: True) for each in ("b", "a")} == ports


def test_a_full_range_is_a_failure_in_words() -> None:
    with pytest.raises(ProvisioningFailure, match=f"no port from {RANGE.start} to"):
        Ports([pool()], {}).claim("default", lambda _port: False)


def test_a_configured_port_in_use_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(Taken):
            Ports([pool(ports=[port])], {}).claim("default", is_free)
        assert f"pid {os.getpid()}" in str(taken_failure(port, holder(port)))
    assert is_free(port)
    assert holder(port) is None


def test_only_listeners_on_the_port_are_found_in_the_kernels_table() -> None:
    row = "   0: 0100007F:46A0 00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0"
    table = "\n".join(["  sl  local_address", row.format("0A"), row.format("01")])
    assert list(listening_inodes(table, 0x46A0)) == ["socket:[4711]"]
    assert list(listening_inodes(table, 80)) == []
