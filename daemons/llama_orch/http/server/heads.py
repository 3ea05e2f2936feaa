"""Request heads: what is refused before anything is routed, and the one form of the target that is routed.

Pure. RFC 9110 and RFC 9112 decide; h11 has already checked the grammar, one Host header for HTTP/1.1, and the framing
that it can tell is wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
"""Known methods, which are routed: a path that does not have the one asked for answers 405. Others get 501."""
VERSIONS = ("1.0", "1.1")
ONCE = (b"host", b"authorization", b"x-api-key", b"origin", b"sec-fetch-site", b"content-encoding")
"""Headers that decide something: sent twice, they could mean one thing here and another to a proxy in front."""
TARGET_LIMIT = 8192
FIELDS_LIMIT = 32 * 1024
FIELD_COUNT_LIMIT = 100
"""Bytes of the target, bytes and number of the headers. h11 limits only what it has not yet read in full."""
UNESCAPED = "/:@!$&'()*+,;=~"

Fields = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Target:
    """Where a request goes: a decoded path without empty or dot segments, and the authority of an absolute target."""

    path: str
    raw_path: bytes
    authority: bytes | None = None


def refusal(method: str, version: str, raw_target: bytes, fields: Fields) -> ApiError | None:
    """Return why a request head cannot be served, or None. The connection is closed after the answer."""
    fields = list(fields)
    return _too_large(raw_target, fields) or _not_spoken(method, version, fields) or _ambiguous(version, fields)


def _too_large(raw_target: bytes, fields: list[tuple[bytes, bytes]]) -> ApiError | None:
    if len(raw_target) > TARGET_LIMIT:
        return _closing(414, f"the request's target is longer than {TARGET_LIMIT} bytes")
    if len(fields) > FIELD_COUNT_LIMIT or sum(len(name) + len(value) for name, value in fields) > FIELDS_LIMIT:
        limits = f"at most {FIELD_COUNT_LIMIT} headers of {FIELDS_LIMIT} bytes together"
        return _closing(431, "the request has too many headers, or too long ones", f"Allowed: {limits}.")
    return None


def _not_spoken(method: str, version: str, fields: list[tuple[bytes, bytes]]) -> ApiError | None:
    if version not in VERSIONS:
        return _closing(505, f"HTTP/{version} is not spoken here", "Use HTTP/1.1.")
    if method not in METHODS:
        return _closing(501, f"the method {method[:32]} is not implemented", f"Allowed: {', '.join(METHODS)}.")
    if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in fields):
        return _closing(400, "WebSocket is not spoken here", "Streams are server-sent events over plain HTTP.")
    return None


def _ambiguous(version: str, fields: list[tuple[bytes, bytes]]) -> ApiError | None:
    names = [name for name, _value in fields]
    if twice := next((name for name in ONCE if names.count(name) > 1), None):
        return _closing(400, f"the header {twice.decode()} is sent more than once")
    if b"transfer-encoding" in names and (b"content-length" in names or version == "1.0"):
        return _closing(
            400,
            "the length of the body is ambiguous: Transfer-Encoding together with Content-Length or HTTP/1.0",
            "Send one of them (RFC 9112, 6.1).",
        )
    if version == "1.1" and not dict(fields).get(b"host", b"").strip():
        return _closing(400, "the header host is empty or missing", "HTTP/1.1 needs one (RFC 9112, 3.2).")
    return None


def target(raw: bytes) -> Target | ApiError:
    """Return the target of a request, without its query, as it is routed: absolute URLs reduced to their path,
    percent-encoding decoded, empty and dot segments resolved."""
    authority, path = None, raw
    if not raw.startswith(b"/"):
        try:
            parts = urlsplit(raw)
            scheme, authority, path = parts.scheme.lower(), parts.netloc, parts.path or b"/"
        except ValueError:
            scheme = b""
        if scheme not in (b"http", b"https") or not authority or b"@" in authority:
            return _closing(
                400, "the request's target is no path", "Send a path that begins with /, or an http:// URL."
            )
    if b"%" not in path and b"//" not in path and b"/." not in path:
        return Target(path.decode("latin-1"), path, authority)
    decoded = resolved(unquote(path.decode("latin-1")))
    return Target(decoded, quote(decoded, safe=UNESCAPED).encode(), authority)


def resolved(path: str) -> str:
    """Return `path` without empty segments and with dot segments resolved (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            kept[-1:] = []
        elif segment not in ("", "."):
            kept.append(segment)
    directory = kept and segments[-1] in ("", ".", "..")
    return f"/{'/'.join(kept)}{'/' if directory else ''}"


def _closing(status: int, message: str, hint: str | None = None) -> ApiError:
    body = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint)
    return ApiError(status, body, (("connection", "close"),))
