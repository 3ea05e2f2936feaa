"""The registered address: as configured, as bound, or the local address of the route to the queen."""

from collections.abc import Mapping

import pytest

from llama_orch.addresses import is_wildcard
from pool_managerd.cluster.addressing import AddressUnknown, address_of, is_only_local
from pool_managerd.settings import PoolManagerSettings

CLOUD = {
    "POOL_MANAGERD_NODE_ID": "gpu-1",
    "ORCHESTRATORD_URL": "http://127.0.0.1:8080",
    "LLORCH_API_TOKEN": "0123456789abcdef0123",
}


def settings(environ: Mapping[str, str]) -> PoolManagerSettings:
    return PoolManagerSettings.load(CLOUD | dict(environ))


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"POOL_MANAGERD_ADVERTISE_URL": "https://gpu.lan:443"}, "https://gpu.lan:443"),
        ({"POOL_MANAGERD_BIND_ADDR": "192.0.2.7:9300"}, "http://192.0.2.7:9300"),
        ({"POOL_MANAGERD_BIND_ADDR": "[2001:db8::7]:9300"}, "http://[2001:db8::7]:9300"),
        ({"POOL_MANAGERD_BIND_ADDR": "gpu-1.lan:9300"}, "http://gpu-1.lan:9300"),
        ({"POOL_MANAGERD_BIND_ADDR": "0.0.0.0:9300"}, "http://127.0.0.1:9300"),
        ({"POOL_MANAGERD_BIND_ADDR": "[::]:9300"}, "http://127.0.0.1:9300"),
        ({"POOL_MANAGERD_BIND_ADDR": "[::]:9300", "ORCHESTRATORD_URL": "http://[::1]:8080"}, "http://[::1]:9300"),
        ({"ORCHESTRATORD_URL": "https://localhost", "POOL_MANAGERD_BIND_ADDR": "0.0.0.0:1"}, "http://127.0.0.1:1"),
    ],
)
async def test_address_is_advertised_bound_or_that_of_the_route(environ: Mapping[str, str], address: str) -> None:
    assert await address_of(settings(environ)) == address


@pytest.mark.parametrize("queen", ["http://queen.invalid:8080", "http://[::1]:8080"])
async def test_unreachable_queen_is_named(queen: str) -> None:
    with pytest.raises(AddressUnknown, match=r"queen\.invalid|::1"):
        await address_of(settings({"ORCHESTRATORD_URL": queen, "POOL_MANAGERD_BIND_ADDR": "0.0.0.0:9200"}))


def test_wildcards_are_recognised_in_every_spelling() -> None:
    assert all(map(is_wildcard, ("0.0.0.0", "::", "0:0:0:0:0:0:0:0")))
    assert not any(map(is_wildcard, ("127.0.0.1", "::1", "gpu-1")))


@pytest.mark.parametrize(
    ("address", "queen", "wrong"),
    [
        ("http://127.0.0.1:9200", "http://queen:8080", True),
        ("http://[::1]:9200", "http://192.0.2.1:8080", True),
        ("http://127.0.0.1:9200", "http://localhost:8080", False),
        ("http://192.0.2.7:9200", "http://queen:8080", False),
    ],
)
def test_loopback_address_is_wrong_for_a_remote_queen(address: str, queen: str, wrong: bool) -> None:
    assert is_only_local(address, queen) is wrong
