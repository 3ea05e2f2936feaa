"""Receive a request body within limits on size, time and, for JSON, on its structure.

Hot paths and Quart's routes of all daemons use it. The body is decoded and scanned in slices while it arrives, with
checkpoints in between, and is refused as soon as it exceeds a limit. One `bytearray` grows in place: a list of chunks
would take 40 times the memory if the body arrives in chunks of one byte.
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
"""Additional seconds per MiB received, for photos over slow connections."""
SLICE = 64 << 10
CHUNKS_FREE = 10_000
BYTES_PER_CHUNK = 256
"""A client may send CHUNKS_FREE chunks of any length, plus one per BYTES_PER_CHUNK bytes. A chunk costs as much CPU as
a kilobyte, however short it is."""
CHUNKS_PER_CHECKPOINT = 64
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class BodySource(Protocol):
    """A request whose body can be read once."""

    async def body(self, limit: int | None = None, shape: Shape | None = None) -> bytearray:
        """Return the whole body as `received` does. `limit` replaces the default limit in bytes."""
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
    """Return the whole decoded body.

    `receive` returns the next chunk, and None at the end. `encoding` is the Content-Encoding. A `shape` bounds the
    structure of a JSON body.

    Raises ApiError: 413 above `limit` decoded bytes (`hint` says how to raise the limit), 408 on timeout, 415 for an
    encoding other than gzip, 400 for invalid gzip or for JSON beyond `shape`.
    """
    decode, began = _decoder(encoding), trio.current_time()
    body, scanned, count = bytearray(), 0, 0
    scan = JsonScan(shape) if shape else None
    with trio.move_on_after(limit_s) as scope:
        while (chunk := await receive()) is not None:
            for part in decode.feed(chunk):
                body += part
                if len(body) > limit:
                    raise too_long(limit, hint)
                while len(body) - scanned >= SLICE:
                    scanned = _scan(scan, body, scanned)
                    await trio.lowlevel.checkpoint()
            count += 1
            if count > CHUNKS_FREE + len(body) // BYTES_PER_CHUNK:
                raise _refused(400, f"the body's chunks are too short: {count} chunks for {len(body)} bytes")
            if count % CHUNKS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
            scope.deadline = began + limit_s + MIB_LIMIT_S * (len(body) >> 20)
        decode.end()
        _scan(scan, body, scanned)
        if scan and body.startswith(BYTE_ORDER_MARK):
            del body[: len(BYTE_ORDER_MARK)]
        return body
    raise _refused(408, f"the body did not arrive within {trio.current_time() - began:g} s")


async def received_into(
    receive: Callable[[], Awaitable[bytes | None]],
    take: Callable[[bytes], Awaitable[None]],
    limit: int,
    *,
    encoding: str = "",
    limit_s: float = BODY_LIMIT_S,
) -> None:
    """Pass the body to `take` as it arrives, without keeping it. Otherwise as `received`."""
    decode, began, size, count = _decoder(encoding), trio.current_time(), 0, 0
    with trio.move_on_after(limit_s) as scope:
        while (chunk := await receive()) is not None:
            for part in decode.feed(chunk):
                size += len(part)
                if size > limit:
                    raise too_long(limit)
                await take(part)
            count += 1
            if count > CHUNKS_FREE + size // BYTES_PER_CHUNK:
                raise _refused(400, f"the body's chunks are too short: {count} chunks for {size} bytes")
            scope.deadline = began + limit_s + MIB_LIMIT_S * (size >> 20)
        decode.end()
        return
    raise _refused(408, f"the body did not arrive within {trio.current_time() - began:g} s")


def _scan(scan: JsonScan | None, body: bytearray, start: int) -> int:
    """Scan the slice of `body` at `start`; return the start of the next one."""
    if scan:
        scan.feed(bytes(memoryview(body)[start : start + SLICE]))
    return start + SLICE


def too_long(limit: int, hint: str | None = None) -> ApiError:
    return _refused(413, f"the body is longer than {limit} bytes", hint)


def _refused(status: int, message: str, hint: str | None = None) -> ApiError:
    return ApiError(status, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint=hint))


def limit_hint(limit: int, own: int) -> str | None:
    """Return how to raise `limit`, or None if it is the path's and not the daemon's `own` limit."""
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
    message = f"Content-Encoding {encoding[:64]!r} is not supported (allowed: gzip, identity)"
    body = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message)
    raise ApiError(415, body, (("accept-encoding", "gzip"),))


class _Identity:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> None:
        pass


class _Gunzip:
    """Decodes one gzip member in steps of at most SLICE bytes, whatever the compression ratio."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of `data`. Raises ApiError 400."""
        part = data
        while part or data:
            if self._inflate.eof:
                if data:
                    raise _not_gzip("data after its end")
                return
            try:
                part = self._inflate.decompress(data, SLICE)
            except zlib.error as error:
                raise _not_gzip(str(error)) from error
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            yield part

    def end(self) -> None:
        """Raises ApiError 400 if the data is incomplete."""
        if not self._inflate.eof:
            raise _not_gzip("it is incomplete")


def _not_gzip(why: str) -> ApiError:
    return _refused(400, f"the body is not valid gzip: {why}")
