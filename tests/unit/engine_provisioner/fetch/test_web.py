"""Requests leave https only for files with a checksum, and reach loopback without a proxy."""

import pytest

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.fetch.web import Resource, Web, is_cleartext, origin, redirected, retry_after_s
from tests.unit.engine_provisioner.file_server import FileServer, serving

PLAIN, VERIFIED = Resource("https://h/m", "m"), Resource("https://h/m", "m", verified=True)


@pytest.mark.parametrize("location", ["http://h/m", "http://127.0.0.1/m", "//other/m", "/m", "https://other/m"])
def test_redirect_off_https_needs_a_checksum(location: str) -> None:
    assert redirected("https://h/a/b", location, VERIFIED)
    if location.startswith("http:"):
        with pytest.raises(ProvisioningFailure, match="redirects to plain http"):
            redirected("https://h/a/b", location, PLAIN)
    else:
        assert redirected("https://h/a/b", location, PLAIN).startswith("https://")


def test_default_port_is_the_same_origin() -> None:
    assert origin("https://h/a") == origin("https://h:443/b")
    assert len({origin(url) for url in ("https://h", "http://h", "https://h:444", "https://g")}) == 4


@pytest.mark.parametrize(
    ("url", "cleartext"), [("http://h/", True), ("http://localhost/", False), ("https://h/", False)]
)
def test_plain_http_to_another_machine_is_cleartext(url: str, cleartext: bool) -> None:
    assert is_cleartext(url) is cleartext


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("9999999", 60), ("Fri, 1 Jan 2027", 0), ("-1", 0), ("", 0)])
def test_retry_after_is_bounded(text: str, seconds: float) -> None:
    assert retry_after_s({"retry-after": text}) == seconds


async def test_loopback_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with (
        serving(FileServer(b"hello")) as server,
        Web(5) as web,
        web.get(Resource(server.url, "m"), {}, {}) as answer,
    ):
        assert await answer.beginning() == b"hello"


async def test_other_hosts_are_reached_by_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(FileServer(b"by proxy")) as proxy, Web(5) as web:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/models/model.gguf"))
        async with web.get(Resource("http://192.0.2.1/m", "m", verified=True), {}, {}) as answer:
            assert await answer.beginning() == b"by proxy"
    assert "GET http://192.0.2.1/m" in proxy.requests[0]
