"""Checks of Host and Origin for requests without a token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.http.server.browsers import WebPolicy, own_names

PLAIN = WebPolicy(own_names=frozenset({"gpu-box", "gpu-box.local"}))
ALLOWING = WebPolicy(
    hosts=("llm.example.org", "*.home.arpa"), origins=("https://chat.example.org", "moz-extension://*", "http://a:3000")
)
GOOD_HOSTS = ("localhost", "localhost:8080", "LOCALHOST.", "a.localhost", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080",
              "[::1]", "192.0.2.7", "gpu-box:8080", "GPU-Box.local")  # fmt: skip
BAD_HOSTS = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io", "0x7f.1",
             "2130706433", "gpu-box.evil.example", "evil.example:8080", "[evil]", "a b", ":8080")  # fmt: skip


def code(
    policy: WebPolicy, host: str | None = "localhost:8080", origin: str | None = None, site: str | None = None
) -> str:
    refused = policy.refusal(host, origin, site, "http")
    assert refused is None or (refused.status == 403 and refused.body.hint)
    return refused.body.code if refused else ""


def test_request_without_origin_is_served() -> None:
    assert {code(PLAIN, host) for host in GOOD_HOSTS} == {""}
    assert code(PLAIN, None) == ""


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_foreign_host_is_refused(host: str) -> None:
    assert code(PLAIN, host) == "FORBIDDEN_HOST"
    assert code(PLAIN, host, f"http://{host}", "same-origin") == "FORBIDDEN_HOST"


def test_allowed_hosts_are_served() -> None:
    assert {code(ALLOWING, host) for host in ("llm.example.org", "LLM.example.org:443", "a.home.arpa")} == {""}
    assert {code(ALLOWING, host) for host in ("home.arpa", "xhome.arpa", "a.llm.example.org")} == {"FORBIDDEN_HOST"}


def test_own_page_is_served() -> None:
    assert code(PLAIN, "localhost:8080", "http://localhost:8080") == ""
    assert code(PLAIN, "localhost:8080", "http://localhost:8080", "same-origin") == ""
    assert code(PLAIN, "localhost", "http://localhost:80") == ""
    assert code(PLAIN, "localhost:8080", None, "none") == ""


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost",
        "http://localhost:8081",
        "https://localhost:8080",
        "http://",
        "",
    ],
)
def test_page_of_another_origin_is_refused(origin: str) -> None:
    assert {code(PLAIN, origin=origin, site=site) for site in (None, "cross-site", "same-site")} == {"FORBIDDEN_ORIGIN"}
    assert {code(ALLOWING, origin=origin, site="cross-site")} == {"FORBIDDEN_ORIGIN"}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_cross_site_request_without_origin_is_refused(site: str) -> None:
    assert code(PLAIN, site=site) == "FORBIDDEN_ORIGIN"


def test_allowed_origins_are_served() -> None:
    for origin in ("https://chat.example.org", "HTTPS://Chat.example.org", "moz-extension://0a-b1", "http://a:3000"):
        assert code(ALLOWING, origin=origin, site="cross-site") == ""
    for origin in ("http://chat.example.org", "https://x.chat.example.org", "chrome-extension://a", "http://a:3001"):
        assert code(ALLOWING, origin=origin, site="cross-site") == "FORBIDDEN_ORIGIN"


def test_all_origins_never_include_null() -> None:
    anyone = WebPolicy(origins=("*",))
    assert anyone.allows("https://any.example")
    assert not anyone.allows("null")


def test_own_names_are_host_name_and_bind_address() -> None:
    assert {"llm.lan"} < own_names("LLM.lan")
    assert "" not in own_names("")


@given(st.text(), st.text())
def test_no_other_origin_passes_by_chance(origin: str, host: str) -> None:
    if origin.lower() != f"http://{host}".lower() and "localhost" not in origin:
        assert code(PLAIN, "localhost:8080", origin) == "FORBIDDEN_ORIGIN"
