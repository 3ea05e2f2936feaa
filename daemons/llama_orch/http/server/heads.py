"""Check request heads before routing, and normalize the request target.

Pure functions after RFC 9110 and RFC 9112. h11 has already checked the grammar, that HTTP/1.1 has one Host header, and
parts of the framing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
"""Methods that are routed; a path without a handler for one answers 405. Other methods get 501."""
VERSIONS = ("1.0", "1.1")
SINGLE_HEADERS = (b"host", b"authorization", b"x-api-key", b"origin", b"sec-fetch-site", b"content-encoding")
"""Headers refused when sent twice: a proxy in front could interpret the pair differently."""
TARGET_LIMIT = 8192
FIELDS_LIMIT = 32 * 1024
FIELD_COUNT_LIMIT = 100
"""Bytes of the target, bytes and number of the headers. h11 limits only incomplete heads."""
UNESCAPED = "/:@!$&'()*+,;=~"

Fields = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class RequestTarget:
    """A normalized target: the decoded path without empty or dot segments, and the authority of an absolute target."""

    path: str
    raw_path: bytes
    authority: bytes | None = None


def refusal(method: str, version: str, raw_target: bytes, fields: Fields) -> ApiError | None:
    """Return why a request head is refused, or None. The answer closes the connection."""
    fields = list(fields)
    return _too_large(raw_target, fields) or _unsupported(method, version, fields) or _ambiguous(version, fields)


def _too_large(raw_target: bytes, fields: list[tuple[bytes, bytes]]) -> ApiError | None:
    if len(raw_target) > TARGET_LIMIT:
        return _closing(414, f"the request target is longer than {TARGET_LIMIT} bytes")
    if len(fields) > FIELD_COUNT_LIMIT or sum(len(name) + len(value) for name, value in fields) > FIELDS_LIMIT:
        limits = f"at most {FIELD_COUNT_LIMIT} headers with {FIELDS_LIMIT} bytes in total"
        return _closing(431, "the request has too many headers or they are too long", f"Allowed: {limits}.")
    return None


def _unsupported(method: str, version: str, fields: list[tuple[bytes, bytes]]) -> ApiError | None:
    if version not in VERSIONS:
        return _closing(505, f"HTTP/{version} is not supported", "Use HTTP/1.1.")
    if method not in METHODS:
        return _closing(501, f"method {method[:32]} is not implemented", f"Allowed: {', '.join(METHODS)}.")
    if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in fields):
        return _closing(400, "WebSocket is not supported", "Streams are server-sent events over plain HTTP.")
    return None


def _ambiguous(version: str, fields: list[tuple[bytes, bytes]]) -> ApiError | None:
    names = [name for name, _value in fields]
    if repeated := next((name for name in SINGLE_HEADERS if names.count(name) > 1), None):
        return _closing(400, f"header {repeated.decode()} is sent more than once")
    if b"transfer-encoding" in names and (b"content-length" in names or version == "1.0"):
        return _closing(
            400,
            "the length of the body is ambiguous: Transfer-Encoding together with Content-Length or HTTP/1.0",
            "Send only one of them (RFC 9112, 6.1).",
        )
    if version == "1.1" and not dict(fields).get(b"host", b"").strip():
        return _closing(400, "header host is missing or empty", "HTTP/1.1 requires it (RFC 9112, 3.2).")
    return None


def target(raw: bytes) -> RequestTarget | ApiError:
    """Normalize a request target without its query.

    Absolute URLs are reduced to their path, percent-encoding is decoded, empty and dot segments are resolved.
    """
    authority, path = None, raw
    if not raw.startswith(b"/"):
        try:
            parts = urlsplit(raw)
            scheme, authority, path = parts.scheme.lower(), parts.netloc, parts.path or b"/"
        except ValueError:
            scheme = b""
        if scheme not in (b"http", b"https") or not authority or b"@" in authority:
            return _closing(
                400, "the request target is not a path", "Send a path that begins with /, or an http:// URL."
            )
    if b"%" not in path and b"//" not in path and b"/." not in path:
        return RequestTarget(path.decode("latin-1"), path, authority)
    decoded = resolved(unquote(path.decode("latin-1")))
    return RequestTarget(decoded, quote(decoded, safe=UNESCAPED).encode(), authority)


def resolved(path: str) -> str:
    """Return `path` without empty segments and with dot segments resolved (RFC 3986, 5.2.4)."""
    resolved_segments: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            resolved_segments[-1:] = []
        elif segment not in ("", "."):
            resolved_segments.append(segment)
    directory = resolved_segments and segments[-1] in ("", ".", "..")
    return f"/{'/'.join(resolved_segments)}{'/' if directory else ''}"


def _closing(status: int, message: str, hint: str | None = None) -> ApiError:
    body = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint)
    return ApiError(status, body, (("connection", "close"),))
