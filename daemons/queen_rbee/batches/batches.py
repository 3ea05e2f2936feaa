"""The batches of clients: kept on disk, worked through one after the other, continued after a restart.

The result files are the record of what is done: a request whose result is in one of them never runs again, and every
other one does. Nothing else has to survive, so that a killed daemon repeats only requests whose answer nobody got.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from llama_orch.contracts.batches import Batch, BatchProblem, NewBatch
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, not_found
from llama_orch.files import durable
from llama_orch.http.server.bodies import invalid
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.batches import record as steps
from queen_rbee.batches.files import PRIVATE, Files, QuotaExceeded
from queen_rbee.batches.record import BatchRecord
from queen_rbee.batches.share import Load
from queen_rbee.batches.work import Execute, Work
from queen_rbee.store.protocol import StoreFailure, not_stored

BATCHES_LIMIT = 1000
"""Batches that are kept, ended ones included."""
HOUSEKEEPING_S = 600.0
STORAGE_RETRY_S = 10.0
HINT = "POST /v1/files stores one, with the purpose batch."


@contextmanager
def writing() -> Iterator[None]:
    """Turn failures of the disk into the ApiError that a client gets: 413 beyond the quota, else 503."""
    try:
        yield
    except QuotaExceeded as error:
        hint = "Delete files, or raise ORCHD_FILES_QUOTA_MB in queen-rbee.env."
        raise ApiError(413, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=str(error), hint=hint)) from error
    except OSError as error:
        raise not_stored(StoreFailure(f"the file cannot be stored or read: {error}")) from error


def _now() -> int:
    return int(time.time())


class Batches:
    """Owns `directory`: the files and the batches in it. A `quota` of 0 bytes turns them off."""

    def __init__(self, directory: Path, quota: int, keep_s: float) -> None:
        self.enabled = quota > 0
        self.files = Files(directory / "files", quota, keep_s)
        self._directory = directory / "batches"
        self._records: dict[str, BatchRecord] = {}
        self._changed = trio.Event()
        self._working: Work | None = None

    async def load(self) -> None:
        """Read what is on disk. Raises OSError."""
        if self.enabled:
            await trio.to_thread.run_sync(self._load)

    def _load(self) -> None:
        self.files.load()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.glob("batch_*.json"):
            try:
                record = BatchRecord.model_validate_json(path.read_bytes())
            except ValueError:
                continue  # damaged
            self._records[record.batch.id] = record
        wanted = {name for record in self._records.values() if record.active for name in (record.output, record.errors)}
        self.files.remove_leftovers(wanted)

    def check_enabled(self) -> None:
        """Raises ApiError 404."""
        if not self.enabled:
            message = "files and batches are turned off: ORCHD_FILES_QUOTA_MB is 0 in queen-rbee.env"
            raise ApiError(404, ErrorBody(code=ErrorCode.NOT_FOUND, message=message))

    def newest_first(self) -> list[Batch]:
        found = [self._seen(record) for record in self._records.values()]
        return sorted(found, key=lambda batch: (batch.created_at, batch.id), reverse=True)

    def get(self, batch_id: str) -> Batch:
        """Raises ApiError 404."""
        return self._seen(self._record(batch_id))

    def _record(self, batch_id: str) -> BatchRecord:
        self.check_enabled()
        if record := self._records.get(batch_id):
            return record
        raise not_found("batch", batch_id, "GET /v1/batches lists them.")

    def _seen(self, record: BatchRecord) -> Batch:
        """Return the batch with the counts of the moment."""
        work = self._working
        if work and work.batch_id == record.batch.id and record.active:
            return record.batch.model_copy(update={"request_counts": work.counts})
        return record.batch

    async def create(self, new: NewBatch) -> Batch:
        """Store a batch; it runs when those before it have ended. Raises ApiError."""
        self.check_enabled()
        source = self.files.get(new.input_file_id)
        if source is None:
            raise not_found("file", new.input_file_id, HINT)
        if source.purpose != "batch":
            raise ApiError(400, invalid([("input_file_id", "is a result, not a file with the purpose batch")]))
        self._make_room()
        record = steps.created(new, _now())
        with writing():
            await self._store(record)
        self._ring()
        return record.batch

    def _make_room(self) -> None:
        if sum(record.active for record in self._records.values()) >= BATCHES_LIMIT:
            message = f"{BATCHES_LIMIT} batches wait, as many as are kept"
            raise ApiError(429, ErrorBody(code=ErrorCode.ADMISSION_REJECT, message=message, retriable=True))

    async def cancel(self, batch_id: str) -> Batch:
        """Stop a batch; what is done stays. Raises ApiError: 404, 409 if it has ended."""
        record = self._record(batch_id)
        if not record.active:
            message = f"the batch has ended: it is {record.batch.status}"
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message))
        with writing():
            await self._store(steps.cancelling(record, _now()))
        if self._working and self._working.batch_id == batch_id:
            self._working.stop("cancelled")
        self._ring()
        return self.get(batch_id)

    async def delete_file(self, file_id: str) -> None:
        """Raises ApiError: 404, 409 while a batch needs the file."""
        self.check_enabled()
        needed = next((r.batch.id for r in self._records.values() if r.active and r.batch.input_file_id == file_id), "")
        if needed:
            message = f"the file is the input of {needed}, which has not ended"
            raise ApiError(409, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message, hint="Cancel it first."))
        with writing():
            deleted = await trio.to_thread.run_sync(self.files.delete, file_id)
        if not deleted:
            raise not_found("file", file_id, "GET /v1/files lists them.")

    async def run(
        self,
        execute: Execute,
        load: Callable[[int], Load],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Work through the batches, oldest first, until cancelled. `load` gets the number of lines under way."""
        task_status.started()
        if not self.enabled:
            return
        while True:
            waiting = sorted((r for r in self._records.values() if r.active), key=_age)
            if waiting:
                await self._work(waiting[0], execute, load)
                continue
            changed = self._changed
            with trio.move_on_after(HOUSEKEEPING_S):
                await changed.wait()
            await self._remove_old()

    async def _work(self, record: BatchRecord, execute: Execute, load: Callable[[int], Load]) -> None:
        """Run a batch to its end. If the disk fails, wait and go on: nothing is lost."""
        batch = record.batch
        work = self._working = Work(self.files, record, execute, load, self._store)
        try:
            if batch.status == "cancelling":
                work.stop("cancelled")
            ended = await work.run()
            await self._store(ended)
            counts = ended.batch.request_counts
            emit(
                events.BATCH_ENDED,
                batch=batch.id,
                state=ended.batch.status,
                completed=counts.completed,
                failed=counts.failed,
                total=counts.total,
            )
        except QuotaExceeded as full:
            problem = BatchProblem(code="quota_exceeded", message=f"{full}; delete files, or raise the quota")
            await self._store(steps.failed(await work.kept(), [problem], _now()))
            emit(events.BATCH_STOPPED, batch=batch.id, reason=str(full))
        except OSError as error:
            emit(events.BATCH_STOPPED, batch=batch.id, reason=str(error))
            await trio.sleep(STORAGE_RETRY_S)
        finally:
            self._working = None

    async def _store(self, record: BatchRecord) -> BatchRecord:
        """Keep the newer state of a batch; a cancel that came meanwhile is not undone."""
        known = self._records.get(record.batch.id)
        if known and known.batch.status == "cancelling" and record.batch.status in ("validating", "in_progress"):
            record = record.with_batch(status="cancelling", cancelling_at=known.batch.cancelling_at)
        path = self._directory / f"{record.batch.id}.json"
        content = record.model_dump_json().encode()
        await trio.to_thread.run_sync(partial(durable.replace, path, content, PRIVATE))
        self._records[record.batch.id] = record
        return record

    async def _remove_old(self) -> None:
        """Erase files and batches that have reached their age."""
        now = time.time()
        needed = {record.batch.input_file_id for record in self._records.values() if record.active}
        for file_id in self.files.expired(now):
            if file_id not in needed:
                await trio.to_thread.run_sync(self.files.delete, file_id)
        old = [r for r in self._records.values() if not r.active and r.batch.created_at + self.files.keep_s <= now]
        ended = sorted((r for r in self._records.values() if not r.active), key=_age)
        for record in {r.batch.id: r for r in (*old, *ended[: max(0, len(ended) - BATCHES_LIMIT)])}.values():
            path = self._directory / f"{record.batch.id}.json"
            await trio.to_thread.run_sync(partial(path.unlink, missing_ok=True))
            del self._records[record.batch.id]

    def _ring(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def _age(record: BatchRecord) -> tuple[int, str]:
    return record.batch.created_at, record.batch.id
