"""Download one file: in parallel ranges where the server has them, resumed after each break, verified as it arrives."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NoReturn

import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch import completion
from engine_provisioner.fetch.attempts import Changed, Claim, first_failure, pause
from engine_provisioner.fetch.backoff import Backoff
from engine_provisioner.fetch.content_range import content_span, content_total, strong_validator
from engine_provisioner.fetch.part_file import CHECKPOINT, PartFile
from engine_provisioner.fetch.remote_file import Refusal, RemoteFile
from engine_provisioner.fetch.spans import Span, Spans, merged, next_piece, prefix, size_of
from engine_provisioner.fetch.terms import Terms
from engine_provisioner.fetch.web import CONNECT_S, TRANSIENT, Answer, Broken, Resource, Web, retry_after_s
from engine_provisioner.step_deadline import DISK_STEP_S

CONNECTIONS = 4
PARALLEL_FROM = 64 << 20
PIECE = 32 << 20
"""Bytes of one request. Small enough that the parts ahead of the hash stay in the page cache."""
BATCH = 256 << 10
"""Bytes of one write, and so what a killed daemon may lose per connection."""
FLUSH_S = 1.0


async def fetch(remote: RemoteFile, web: Web, terms: Terms) -> str:
    """Download `remote` to its target and return its SHA-256 as hex digits.

    Raises ProvisioningFailure. The bytes so far are kept for the next attempt, unless that cannot use them.
    """
    part = PartFile(remote.target, remote.identity, remote.keep)
    try:
        with completion.disk_failures(remote):
            download = _Download(remote, web, terms, part, await trio.to_thread.run_sync(part.open))
            try:
                return await download.run()
            except ProvisioningFailure as failure:
                if failure.retry in (Retry.REFETCH, Retry.NEVER):
                    download.forget()
                raise
            finally:
                with trio.CancelScope(shield=True):
                    await download.keep()
    finally:
        part.close()


class _Download:
    """Owns the spans of one file. `_done` only has spans whose writes have returned."""

    def __init__(self, remote: RemoteFile, web: Web, terms: Terms, part: PartFile, done: Spans) -> None:
        self._remote, self._web, self._terms, self._part = remote, web, terms, part
        self._resource = Resource(remote.url, remote.shown, remote.sha256 is not None)
        self._done = done
        self._claims: list[Claim] = []
        self._ranges_allowed = True
        self._grown = trio.Event()
        self._checkpoint_at = CHECKPOINT
        self._checkpointing = False
        self._published = False

    async def run(self) -> str:
        """Download, verify and publish the file; return its SHA-256."""
        backoff = Backoff()
        await self._report()
        if (version := self._part.version) and version.size is not None:  # an earlier attempt has begun
            await self._make_room(version.size)
        while not self._complete():
            try:
                await self._round()
            except Changed:
                await self._restart()
                backoff = await self._pause(backoff, Broken("the file changed on the server"))
            except Broken as broken:
                backoff = await self._pause(backoff, broken)
        digest = await completion.finish(self._remote, self._part, size_of(self._done), self._terms.expect)
        self._published = True
        return digest

    def forget(self) -> None:
        """Let nothing be kept for the next attempt, which cannot use it."""
        self._done = ()

    async def keep(self) -> None:
        """Make what is on disk survive a power cut, for the next attempt; delete a download that has nothing."""
        if not self._published:
            await trio.to_thread.run_sync(
                *((self._part.checkpoint, self._done) if self._done else (self._part.discard,))
            )

    def _complete(self) -> bool:
        version = self._part.version
        return version is not None and version.size is not None and size_of(self._done) == version.size

    async def _round(self) -> None:
        """Work until the file is complete. Raises Broken, Changed, ProvisioningFailure and OSError."""
        async with first_failure() as (nursery, guarded):
            start_hashing = partial(nursery.start_soon, guarded, self._hash_along)
            version = self._part.version
            if version and version.ranges and version.size is not None:
                start_hashing()
                await guarded(self._all_ranges)
            else:
                await guarded(partial(self._first_contact, start_hashing))
            nursery.cancel_scope.cancel()

    async def _first_contact(self, start_hashing: Callable[[], None]) -> None:
        """Find out what the server has. Its answer is either the whole file or the first of its ranges."""
        version = self._part.version
        if not self._ranges_allowed or version is None or not self._resumable(version.validator):
            await self._restart()
        start = prefix(self._done)
        wanted = (start, start + PIECE if start == 0 else None) if self._ranges_allowed else None
        async with self._request(wanted) as response:
            validator = strong_validator(response.headers)
            if response.status == 200:
                await self._restart()
                length = response.headers.get("content-length", "")
                await self._begin(validator, int(length) if length.isdigit() else None, False)
                start_hashing()
                await self._receive(response, Claim(0, None))
                return
            total, (first, end) = content_total(response.headers), content_span(response.headers)
            if first != start or total is None or (end < total and not self._resumable(validator)):
                self._ranges_allowed = False  # its ranges cannot be put together: ask for all at once
                raise Changed
            await self._begin(validator, total, True)
            start_hashing()
            await self._all_ranges(response, Claim(start, min(end, total)))

    def _resumable(self, validator: str | None) -> bool:
        """Whether parts from several answers can be known to belong together."""
        return validator is not None or self._remote.sha256 is not None

    async def _all_ranges(self, response: Answer | None = None, claim: Claim | None = None) -> None:
        """Download all that is missing; `response` is an open answer with the part `claim`."""
        workers = CONNECTIONS if self._size() >= PARALLEL_FROM else 1
        self._claims = [claim] if claim else []
        async with first_failure() as (nursery, guarded):
            nursery.start_soon(guarded, partial(self._work, response, claim))
            for _ in range(workers - 1):
                nursery.start_soon(guarded, partial(self._work, None, None))

    async def _work(self, response: Answer | None, claim: Claim | None) -> None:
        """Download piece after piece over one connection."""
        backoff = Backoff()
        while claim := claim or self._next_claim():
            try:
                if response is not None:
                    await self._receive(response, claim)
                elif claim.end is not None and claim.start < claim.end:
                    async with self._request((claim.start, claim.end)) as answer:
                        self._check_same(answer, claim)
                        await self._receive(answer, claim)
                self._claims.remove(claim)
                claim = None
            except Broken as broken:
                backoff = await self._pause(backoff, broken)
            response = None

    def _next_claim(self) -> Claim | None:
        claimed: list[Span] = [(claim.start, claim.end) for claim in self._claims if claim.end is not None]
        piece = next_piece(self._done, claimed, self._size(), PIECE)
        if piece is None:
            return None
        self._claims.append(Claim(*piece))
        return self._claims[-1]

    @asynccontextmanager
    async def _request(self, wanted: tuple[int, int | None] | None) -> AsyncIterator[Answer]:
        """Request the bytes from `wanted[0]` up to `wanted[1]`, or all; yield an answer with status 200 or 206."""
        headers: dict[str, str] = {}
        version = self._part.version
        if wanted:
            start, end = wanted
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if version and version.validator:
                headers["if-range"] = version.validator
        for renew in (False, True):
            self._terms.expect(2 * CONNECT_S + self._web.idle_s + DISK_STEP_S, "downloading")
            private = await self._remote.headers(renew)
            async with self._web.get(self._resource, headers, private) as response:
                status = response.status
                if status in (200, 206):
                    yield response
                    return
                if status == 401 and not renew:
                    continue
                if status == 416:
                    self._ranges_allowed = bool(self._done)  # an empty file has no ranges
                    raise Changed
                if status in TRANSIENT:
                    raise Broken(f"the server answered {status}", retry_after_s(response.headers))
                body = await response.beginning()
                raise self._remote.refused(Refusal(status, response.headers, body))

    def _check_same(self, response: Answer, claim: Claim) -> None:
        """Raise Changed unless the answer is the requested part of the version that is being downloaded."""
        version = self._part.version
        if response.status != 206 or content_total(response.headers) != self._size():
            raise Changed
        if content_span(response.headers)[0] != claim.start:
            raise Broken("the server sent a different range than requested")
        if version and version.validator and strong_validator(response.headers) not in (version.validator, None):
            raise Changed

    async def _receive(self, response: Answer, claim: Claim) -> None:
        """Store the body of `response` in `claim`. Raises Broken if it ends early."""
        batch, stored_at = bytearray(), trio.current_time()
        try:
            while chunk := await response.receive():
                batch += chunk if claim.end is None else chunk[: claim.end - claim.start - len(batch)]
                self._terms.expect(self._web.idle_s + DISK_STEP_S, "downloading")
                await self._terms.bandwidth.spend(len(chunk))
                if len(batch) >= BATCH or trio.current_time() - stored_at >= FLUSH_S:
                    await self._store(claim, batch)
                    stored_at = trio.current_time()
        finally:  # keep the bytes also when the connection breaks or the daemon stops
            with trio.CancelScope(shield=True):
                await self._store(claim, batch)
        if claim.end is None:
            await self._end_of_stream(claim.start)
        elif claim.start < claim.end:
            raise Broken("the server closed the connection early")

    async def _end_of_stream(self, size: int) -> None:
        version = self._part.version
        if version is None or version.size is None:
            await self._begin(version.validator if version else None, size, False)
        elif size < version.size:
            raise Broken("the server closed the connection early")

    async def _store(self, claim: Claim, batch: bytearray) -> None:
        if not batch:
            return
        data = bytes(batch)
        batch.clear()
        if claim.start == 0:
            completion.check_beginning(self._remote, data)
        await trio.to_thread.run_sync(self._part.write, claim.start, data, self._done)
        self._done = merged((*self._done, (claim.start, claim.start + len(data))))
        claim.start += len(data)
        self._grown.set()
        self._grown = trio.Event()
        await self._report()
        if size_of(self._done) >= self._checkpoint_at and not self._checkpointing:
            await self._checkpoint()

    async def _report(self) -> None:
        await self._terms.on_progress(size_of(self._done), self._part.version.size if self._part.version else None)

    async def _checkpoint(self) -> None:
        self._checkpoint_at = size_of(self._done) + CHECKPOINT
        self._checkpointing = True
        try:
            await trio.to_thread.run_sync(self._part.checkpoint, self._done)
        finally:
            self._checkpointing = False

    async def _hash_along(self) -> NoReturn:
        """Hash the beginning of the file as far as it has no gap, while the rest arrives."""
        while True:
            grown = self._grown
            if self._part.hashed < (end := prefix(self._done)):
                await trio.to_thread.run_sync(self._part.hash_block, end)
            else:
                await grown.wait()

    async def _begin(self, validator: str | None, size: int | None, ranges: bool) -> None:
        """Learn which version of the file is downloaded, and check that it fits on the disk."""
        completion.check_size(self._remote, size)
        if size is not None:
            await self._make_room(size)
        await trio.to_thread.run_sync(self._part.begin, validator, size, ranges, self._done)
        self._checkpoint_at = size_of(self._done) + CHECKPOINT

    async def _make_room(self, size: int) -> None:
        """Raise ProvisioningFailure if there is no room for a file of `size` bytes."""
        present = size_of(self._done)
        await self._terms.make_room(size, self._remote.target.parent, present)
        await trio.to_thread.run_sync(completion.check_free_space, self._remote, size - present)

    async def _restart(self) -> None:
        self._done, self._claims = (), []
        await trio.to_thread.run_sync(self._part.restart)

    async def _pause(self, before: Backoff, broken: Broken) -> Backoff:
        backoff = before.after_failure(size_of(self._done))
        await pause(backoff, broken, self._remote.shown, self._terms.expect)
        return backoff

    def _size(self) -> int:
        assert self._part.version is not None
        assert self._part.version.size is not None
        return self._part.version.size
