"""Checks of request heads and normalization of the target."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.heads import (
    FIELD_COUNT_LIMIT,
    FIELDS_LIMIT,
    TARGET_LIMIT,
    RequestTarget,
    refusal,
    resolved,
    target,
)

HOST = (b"host", b"localhost")


def status(
    *fields: tuple[bytes, bytes], method: str = "GET", version: str = "1.1", raw: bytes = b"/", host: bool = True
) -> int:
    """Return the status of the refusal, or 0. Checks that a refusal closes the connection."""
    refused = refusal(method, version, raw, [HOST, *fields] if host else fields)
    if refused is None:
        return 0
    assert refused.headers == (("connection", "close"),)
    return refused.status


def test_versions_other_than_1_0_and_1_1_are_505() -> None:
    assert [status(version=version) for version in ("1.0", "1.1")] == [0, 0]
    assert {status(version=version) for version in ("0.9", "1.2", "2.0", "3.0", "9.9")} == {505}


def test_unknown_method_is_501() -> None:
    assert {status(method=method) for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "TRACE")} == {0}
    assert {status(method=method) for method in ("CONNECT", "get", "PRI", "BREW", "X" * 100)} == {501}


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "origin", "host", "sec-fetch-site"])
def test_repeated_deciding_header_is_refused(name: str) -> None:
    once = (name.encode(), b"x")
    assert status(once, host=name != "host") == 0
    assert status(once, once, host=name != "host") == 400


def test_body_length_must_be_unambiguous() -> None:
    chunked, length = (b"transfer-encoding", b"chunked"), (b"content-length", b"5")
    assert status(chunked) == status(length) == status(length, version="1.0") == 0
    assert status(chunked, length) == status(chunked, version="1.0") == 400


def test_http_1_1_needs_a_host() -> None:
    assert status(host=False) == status((b"host", b" "), host=False) == 400
    assert status(host=False, version="1.0") == 0


def test_websocket_is_refused_and_other_upgrades_ignored() -> None:
    assert status((b"connection", b"Upgrade"), (b"upgrade", b"WebSocket")) == 400
    assert status((b"connection", b"Upgrade"), (b"upgrade", b"h2c")) == 0


def test_size_and_number_of_headers_are_bounded() -> None:
    assert status(raw=b"/" * TARGET_LIMIT) == 0
    assert status(raw=b"/" * (TARGET_LIMIT + 1)) == 414
    assert status(*[(b"a", b"")] * (FIELD_COUNT_LIMIT - 1)) == 0
    assert status(*[(b"a", b"")] * FIELD_COUNT_LIMIT) == 431
    assert status((b"a", b"x" * FIELDS_LIMIT)) == 431


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/v1/models", "/v1/models"),
        ("//v1/models", "/v1/models"),
        ("/v1//models", "/v1/models"),
        ("/v1/./models", "/v1/models"),
        ("/v2/meta/../tasks", "/v2/tasks"),
        ("/v2/meta/%2e%2e/tasks", "/v2/tasks"),
        ("/v2/meta/..%2ftasks", "/v2/tasks"),
        ("/..//../etc", "/etc"),
        ("/v1/models/", "/v1/models/"),
        ("/v1/models//", "/v1/models/"),
        ("/v1/..", "/"),
        ("/%20a", "/ a"),
        ("http://localhost:8080/v1/models", "/v1/models"),
        ("HTTP://localhost//v1/models", "/v1/models"),
        ("https://localhost", "/"),
    ],
)
def test_target_is_normalized(raw: str, path: str) -> None:
    found = target(raw.encode())
    assert isinstance(found, RequestTarget)
    assert found.path == path


def test_absolute_target_names_the_host() -> None:
    found = target(b"http://evil.example:8080/v2/tasks")
    assert isinstance(found, RequestTarget)
    assert found.authority == b"evil.example:8080"


@pytest.mark.parametrize(
    "raw", ["*", "health", "ftp://localhost/x", "http:///x", "http://a@b/x", "x:443", "http://[x/"]
)
def test_target_that_is_not_a_path_is_refused(raw: str) -> None:
    found = target(raw.encode())
    assert isinstance(found, ApiError)
    assert found.status == 400


PIECES = st.lists(st.sampled_from(["/", "//", ".", "..", "%2e", "%2F", "a", "%00", "%41", "v2", "meta"]), max_size=12)


@given(PIECES)
def test_routed_path_has_no_empty_or_dot_segments(pieces: list[str]) -> None:
    found = target(f"/{''.join(pieces)}".encode())
    assert isinstance(found, RequestTarget)
    segments = found.path.removesuffix("/").split("/")[1:]
    assert found.path.startswith("/")
    assert not {"", ".", ".."} & set(segments)
    again = target(found.raw_path)
    assert again == RequestTarget(found.path, found.raw_path) or "%" in quote(found.path)


@given(st.text())
def test_resolving_is_idempotent(path: str) -> None:
    assert resolved(resolved(path)) == resolved(path)
