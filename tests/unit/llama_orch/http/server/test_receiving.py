"""Receiving bodies: limits on size, time, chunks and shape; gzip."""

import gzip
import zlib
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from llama_orch.contracts.errors import ApiError
from llama_orch.http.server.json_scan import Shape
from llama_orch.http.server.receiving import CHUNKS_FREE, MIB_LIMIT_S, SLICE, received

ANY = Shape(values=10**9, nodes=10**9)
LIMIT = 1 << 20


class Sender:
    """Sends `pieces` and counts how many were requested."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.sent = 0

    async def __call__(self) -> bytes | None:
        self.sent += 1
        return next(self._pieces, None)


def sender(*pieces: bytes) -> Sender:
    return Sender(iter(pieces))


def in_chunks(body: bytes, size: int = 1000) -> Sender:
    return Sender(body[at : at + size] for at in range(0, len(body), size))


async def refusal(send: Sender, **options) -> ApiError:
    with pytest.raises(ApiError) as refused:
        await received(send, **{"limit": LIMIT, **options})
    return refused.value


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP "])
async def test_gzip_is_decoded_for_any_chunk_size(encoding: str) -> None:
    body = bytes(range(256)) * 1000
    for size in (1, 1000, LIMIT):
        assert await received(in_chunks(gzip.compress(body), size), LIMIT, encoding=encoding) == body


@pytest.mark.parametrize(
    "sent",
    [b"plain", gzip.compress(b"a" * 999)[:-9], gzip.compress(b"a") + b"more", zlib.compress(b"a"), b""],
    ids=["plain", "cut", "more", "zlib", "empty"],  # the time in the header would be in the name
)
async def test_invalid_gzip_is_400(sent: bytes) -> None:
    assert (await refusal(in_chunks(sent), encoding="gzip")).status == 400


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
async def test_other_encoding_is_415(encoding: str) -> None:
    refused = await refusal(sender(b"x"), encoding=encoding)
    assert (refused.status, refused.headers) == (415, (("accept-encoding", "gzip"),))


async def test_gzip_bomb_is_refused_at_the_limit() -> None:
    send = in_chunks(gzip.compress(b" " * (64 * LIMIT)), 100)
    assert (await refusal(send, encoding="gzip")).status == 413
    assert send.sent < 15  # a hundredth of it is 1 MiB


async def test_raisable_limit_has_a_hint() -> None:
    assert (await refusal(sender(b"x" * (LIMIT + 1)), hint="Raise it.")).body.hint == "Raise it."


async def test_byte_order_mark_before_json_is_skipped() -> None:
    mark = b"\xef\xbb\xbf"
    assert await received(sender(mark[:1], mark[1:] + b"{}"), LIMIT, ANY) == b"{}"
    assert await received(sender(mark + b"{}"), LIMIT) == mark + b"{}"


async def test_shape_is_checked_before_the_end() -> None:
    send = Sender(b"1," * 1000 for _ in range(1000))
    refused = await refusal(send, shape=Shape(values=100_000, nodes=1), limit=1 << 30)
    assert (refused.status, send.sent < 150) == (400, True)


async def test_last_slice_is_scanned() -> None:
    body = b"[" + b" " * SLICE + b"1,1,1"
    assert (await refusal(in_chunks(body), shape=Shape(values=2, nodes=9))).status == 400


async def test_too_many_short_chunks_are_refused() -> None:
    refused = await refusal(Sender(b"12" for _ in range(10 * CHUNKS_FREE)))
    assert (refused.status, "chunks" in refused.body.message) == (400, True)


async def test_short_chunks_do_not_block_other_tasks() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await received(Sender(b"1" for _ in range(CHUNKS_FREE)), LIMIT)
        nursery.cancel_scope.cancel()
    assert turns > 100


async def test_long_body_has_more_time(autojump_clock: trio.testing.MockClock) -> None:
    send = sender(*[b"x" * LIMIT] * 9)

    async def slow() -> bytes | None:
        await trio.sleep(MIB_LIMIT_S - 1)
        return await send()

    assert len(await received(slow, 10 * LIMIT, limit_s=10)) == 9 * LIMIT
