"""Receives the body of a request within limits: of its size, of time, and of what it holds if it is JSON.

The one way for hot paths and for Quart's, in all daemons. The body is decoded and scanned in slices while it arrives,
other tasks run in between, and what is too much is refused at once. One `bytearray` grows in place: a list of the
pieces takes 40 times a body that comes in chunks of one byte.
"""

import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.http.server.json_scan import JsonScan, Shape
from llama_orch.settings.api import SETTING

BODY_LIMIT_S = 30.0
MIB_LIMIT_S = 8.0
"""So much more time for each MiB that has come: slow lines bring photos, too."""
SLICE = 64 << 10
PIECES_MOST = 10_000
BYTES_A_PIECE = 256
"""A client may send PIECES_MOST chunks of any length, and one more for each so many bytes. A chunk costs as much as a
kilobyte, however short it is."""
TURN_PIECES = 64
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Source(Protocol):
    """A request of which the body can be had, once."""

    async def body(self, limit: int | None = None, shape: Shape | None = None) -> bytearray:
        """All of it, as `received` says; `limit` is for paths that have one of their own."""
        ...


async def received(
    receive: Callable[[], Awaitable[bytes | None]],
    limit: int,
    shape: Shape | None = None,
    *,
    encoding: str = "",
    limit_s: float = BODY_LIMIT_S,
    hint: str | None = None,
) -> bytearray:
    """The whole body, decoded. `receive` returns the next piece of it, and None at the end; `encoding` is its
    Content-Encoding. With a `shape` it is JSON.

    Raises ApiError: 413 beyond `limit` bytes, decoded (`hint` says how to raise it), 408 when it takes too long, 415
    for another encoding than gzip, 400 for what is not gzip or not of the shape.
    """
    decode, began = _decoder(encoding), trio.current_time()
    body, scanned, count = bytearray(), 0, 0
    scan = JsonScan(shape) if shape else None
    with trio.move_on_after(limit_s) as scope:
        while (piece := await receive()) is not None:
            for part in decode.feed(piece):
                body += part
                if len(body) > limit:
                    raise too_long(limit, hint)
                while len(body) - scanned >= SLICE:
                    scanned = _scanned(scan, body, scanned)
                    await trio.lowlevel.checkpoint()
            count += 1
            if count > PIECES_MOST + len(body) // BYTES_A_PIECE:
                raise _refused(400, f"the body comes in chunks that are too short: {count} for {len(body)} bytes")
            if count % TURN_PIECES == 0:
                await trio.lowlevel.checkpoint()
            scope.deadline = began + limit_s + MIB_LIMIT_S * (len(body) >> 20)
        decode.end()
        _scanned(scan, body, scanned)
        if scan and body.startswith(BYTE_ORDER_MARK):
            del body[: len(BYTE_ORDER_MARK)]
        return body
    raise _refused(408, f"the body did not arrive within {trio.current_time() - began:g} s")


def _scanned(scan: JsonScan | None, body: bytearray, start: int) -> int:
    """Scan a slice of `body` from `start` on; where the next one begins."""
    if scan:
        scan.feed(bytes(memoryview(body)[start : start + SLICE]))
    return start + SLICE


def too_long(limit: int, hint: str | None = None) -> ApiError:
    """What is answered to a body of more than `limit` bytes."""
    return _refused(413, f"the body is longer than {limit} bytes", hint)


def _refused(status: int, message: str, hint: str | None = None) -> ApiError:
    return ApiError(status, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))


def limit_hint(limit: int, own: int) -> str | None:
    """How to raise `limit`, if the daemon's `own` bounds it and not one of the path's."""
    return f"{SETTING} in the daemon's environment file raises this limit." if limit >= own else None


class _Decoder(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def end(self) -> None: ...


def _decoder(encoding: str) -> _Decoder:
    match encoding.strip().lower():
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Gunzip()
    message = f"the body has the Content-Encoding {encoding[:64]!r}; gzip is decoded here, and nothing else"
    body = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message)
    raise ApiError(415, body, (("accept-encoding", "gzip"),))


class _Identity:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> None:
        """It ends wherever it ends."""


class _Gunzip:
    """One gzip member; at most SLICE bytes at a time come of it, however well it is compressed."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes of `data`. Raises ApiError 400."""
        part = data
        while part or data:
            if self._inflate.eof:
                if data:
                    raise _not_gzip("something follows its end")
                return
            try:
                part = self._inflate.decompress(data, SLICE)
            except zlib.error as error:
                raise _not_gzip(str(error)) from error
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            yield part

    def end(self) -> None:
        """Raises ApiError 400 where the end is missing."""
        if not self._inflate.eof:
            raise _not_gzip("its end is missing")


def _not_gzip(why: str) -> ApiError:
    return _refused(400, f"the body is not gzip, as its Content-Encoding says: {why}")
