"""Who sends a request: a person or program on this machine, or anybody else. Pure."""

from collections.abc import Mapping

from llama_orch.addresses import is_loopback

PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Headers of a proxy, behind which a loopback peer may speak for anybody."""


def is_local_operator(client: tuple[str, int] | None, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine itself: by the Unix socket (`client` is None) or from loopback, and by
    no proxy. What only operators may see is shown to these; `headers` are looked up in lower case."""
    if any(name in headers for name in PROXIES):
        return False
    return client is None or is_loopback(client[0])
