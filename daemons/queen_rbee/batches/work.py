"""The work on one batch: check its input, run what is not done, write each result, end it."""

import math
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from llama_orch.contracts.batches import BatchLine, RequestCounts, Url
from queen_rbee.batches import lines
from queen_rbee.batches import record as steps
from queen_rbee.batches.files import Draft, Files, QuotaExceeded
from queen_rbee.batches.record import BatchRecord, Ending
from queen_rbee.batches.share import Load, lines_to_start

POLL_S = 0.25
"""The longest time until free slots are noticed."""
ATTEMPTS = 5
"""How often an engine may fail a request. Being refused for want of room is no failure."""
NO_ROOM = (429, 503)
EXPIRED = "This request could not be executed before the completion window expired."


@dataclass(frozen=True)
class LineAnswer:
    """The answer to one request: JSON. `retry_s` is when to try again, None if this is the answer."""

    status: int
    body: bytes
    request_id: str
    retry_s: float | None = None


class Execute(Protocol):
    async def __call__(self, url: Url, line: BatchLine) -> LineAnswer:
        """Answer one request. Cancelling it cancels the request."""
        ...


@dataclass(frozen=True)
class _Result:
    ok: bool
    data: bytes


class Work:
    """One batch from its start, or from where it was when the daemon ended."""

    def __init__(
        self,
        files: Files,
        record: BatchRecord,
        execute: Execute,
        load: Callable[[int], Load],
        store: Callable[[BatchRecord], Awaitable[BatchRecord]],
    ) -> None:
        self._files = files
        self._record = record
        self._execute = execute
        self._load = load
        self._store = store
        self._scope = trio.CancelScope()
        self._ending: Ending = "completed"
        self._ours = 0
        self._line_ended = trio.Event()
        self._total = self._completed = self._failed = 0
        self._drafts: list[Draft] = []
        self._failure: OSError | QuotaExceeded | None = None

    @property
    def batch_id(self) -> str:
        return self._record.batch.id

    @property
    def counts(self) -> RequestCounts:
        return RequestCounts(total=self._total, completed=self._completed, failed=self._failed)

    def stop(self, ending: Ending) -> None:
        """Start nothing more, cancel what runs, and end the batch as `ending`."""
        self._ending = ending
        if ending == "cancelled":
            self._record = steps.cancelling(self._record, int(time.time()))
        self._scope.cancel()

    async def run(self) -> BatchRecord:
        """Return the ended batch. Raises OSError, QuotaExceeded."""
        batch = self._record.batch
        found = await trio.to_thread.run_sync(self._index)
        if found.problems:
            return steps.failed(self._record, found.problems, int(time.time()))
        self._total = len(found.starts)
        done = await trio.to_thread.run_sync(partial(self._resume, found))
        self._record = await self._store(steps.begun(self._record, self.counts, int(time.time())))
        expires_in = (batch.expires_at or math.inf) - time.time()
        send, receive = trio.open_memory_channel[_Result](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_all, receive)
            async with send:
                with self._scope:
                    self._scope.deadline = trio.current_time() + max(0.0, expires_in)
                    await self._run_lines(found, done, send)
                if self._scope.cancelled_caught and self._ending == "completed":
                    self._ending = "expired"
        if self._failure:
            raise self._failure
        if self._ending == "expired":
            await trio.to_thread.run_sync(partial(self._mark_expired, found))
        return await self._end()

    def _index(self) -> lines.Index:
        path = self._files.path(self._record.batch.input_file_id)
        with path.open("rb") as file:
            return lines.index(_bounded(file.readline), self._record.batch.endpoint)

    def _resume(self, found: lines.Index) -> set[int]:
        """Open the result files, cut off what a kill has left, and return the lines that are done."""
        done: set[int] = set()
        self._drafts = [self._files.draft(name) for name in (self._record.output, self._record.errors)]
        for draft, count in zip(self._drafts, ("_completed", "_failed"), strict=True):
            whole, before = 0, len(done)
            with draft.path.open("rb") as file:
                for key, end in lines.finished(file):
                    whole = end
                    if key in found.line_of:
                        done.add(found.line_of[key])
            self._files.cut(draft, whole)
            setattr(self, count, len(done) - before)
        return done

    async def _run_lines(self, found: lines.Index, done: set[int], send: trio.MemorySendChannel[_Result]) -> None:
        async with trio.open_nursery() as nursery:
            for number, start in enumerate(found.starts):
                if number in done:
                    continue
                while not lines_to_start(self._load(self._ours)):
                    ended = self._line_ended
                    with trio.move_on_after(POLL_S):
                        await ended.wait()
                self._ours += 1
                nursery.start_soon(self._run_line, start, send)

    async def _run_line(self, start: int, send: trio.MemorySendChannel[_Result]) -> None:
        try:
            line = await trio.to_thread.run_sync(self._read_line, start)
            answer = await self._answered(line)
        except OSError as error:
            self._fail(error)
            return
        finally:
            self._ours -= 1
            ended, self._line_ended = self._line_ended, trio.Event()
            ended.set()
        with trio.CancelScope(shield=True):  # the request is done: its result must not be lost
            data = lines.result(line.custom_id, answer.request_id, answer.status, answer.body)
            await send.send(_Result(answer.status == 200, data))

    def _read_line(self, start: int) -> BatchLine:
        with self._files.path(self._record.batch.input_file_id).open("rb") as file:
            file.seek(start)
            return lines.parsed(file.readline(lines.LINE_BYTES + 1))

    async def _answered(self, line: BatchLine) -> LineAnswer:
        failures = 0
        while True:
            answer = await self._execute(self._record.batch.endpoint, line)
            failures += answer.status not in NO_ROOM
            if answer.retry_s is None or failures >= ATTEMPTS:
                return answer
            await trio.sleep(answer.retry_s)

    def _fail(self, error: OSError | QuotaExceeded) -> None:
        """Stop the batch, which cannot be stored."""
        self._failure = self._failure or error
        self._scope.cancel()

    async def _write_all(self, receive: trio.MemoryReceiveChannel[_Result]) -> None:
        """Write the results: what has come together with one write. After a failure the rest is run again later."""
        async for first in receive:
            ready = [first]
            while True:
                try:
                    ready.append(receive.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            if self._failure:
                continue
            try:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._append, ready)
            except (OSError, QuotaExceeded) as error:
                self._fail(error)
                continue
            self._completed += sum(each.ok for each in ready)
            self._failed += sum(not each.ok for each in ready)

    def _append(self, ready: list[_Result]) -> None:
        for draft, ok in zip(self._drafts, (True, False), strict=True):
            if data := b"".join(each.data for each in ready if each.ok is ok):
                self._files.append(draft, data)

    def _mark_expired(self, found: lines.Index) -> None:
        done = self._resume(found)
        for number, start in enumerate(found.starts):
            if number not in done:
                line = self._read_line(start)
                data = lines.unanswered(line.custom_id, f"{self.batch_id}_{number}", "batch_expired", EXPIRED)
                self._files.append(self._drafts[1], data)
                self._failed += 1

    async def _end(self) -> BatchRecord:
        if self._ending != "cancelled":
            self._record = await self._store(steps.finalizing(self._record, int(time.time())))
        output, errors = await trio.to_thread.run_sync(self._keep)
        return steps.ended(self._record, self._ending, self.counts, output, errors, int(time.time()))

    async def kept(self) -> BatchRecord:
        """Keep the results of a batch that cannot go on; return the batch with their ids. Raises OSError."""
        output, errors = await trio.to_thread.run_sync(self._keep)
        changes = {"output_file_id": output, "error_file_id": errors, "request_counts": self.counts}
        return self._record.with_batch(**changes)

    def _keep(self) -> tuple[str | None, str | None]:
        """Make the result files visible; an empty one is removed."""
        return self._kept(0, "output"), self._kept(1, "errors")

    def _kept(self, which: int, what: str) -> str | None:
        if len(self._drafts) <= which:
            return None
        draft = self._drafts[which]
        if draft.size:
            return self._files.keep(draft, f"{self.batch_id}_{what}.jsonl", "batch_output").id
        self._files.drop(draft)
        return None


def _bounded(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, none longer than LINE_BYTES and a byte."""
    while line := readline(lines.LINE_BYTES + 1):
        yield line
