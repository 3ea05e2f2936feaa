"""Decide whether a request comes from this machine. Pure functions."""

from collections.abc import Mapping

from llama_orch.addresses import is_loopback

PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Headers that proxies add. Behind a proxy a loopback peer may act for anybody."""


def is_local_operator(client: tuple[str, int] | None, headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from an operator on this machine, who may see more than others.

    That is a request over the Unix socket (`client` is None) or from loopback, and not through a proxy. `headers` are
    looked up in lower case.
    """
    if any(name in headers for name in PROXIES):
        return False
    return client is None or is_loopback(client[0])
