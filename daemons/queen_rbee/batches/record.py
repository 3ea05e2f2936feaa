"""The state of one batch, and its steps from one state to the next. Pure."""

import re
import secrets
from typing import Literal

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.batches import Batch, BatchProblem, BatchProblems, BatchState, NewBatch, RequestCounts
from queen_rbee.batches.files import new_id

HOUR_S = 3600
UNITS_S = {"h": HOUR_S, "d": 24 * HOUR_S}
ACTIVE: frozenset[BatchState] = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
Ending = Literal["completed", "expired", "cancelled"]


class BatchRecord(Outbound):
    """What is kept on disk: the batch as clients see it, and the ids that its result files have or will have."""

    batch: Batch
    output: str
    errors: str

    @property
    def active(self) -> bool:
        return self.batch.status in ACTIVE

    def with_batch(self, **changes: object) -> "BatchRecord":
        return self.model_copy(update={"batch": self.batch.model_copy(update=changes)})


def window_s(window: str) -> int:
    """Return the seconds of a completion window such as 24h or 7d. Raises ValueError."""
    if match := re.fullmatch(r"(\d{1,3})([hd])", window):
        return int(match[1]) * UNITS_S[match[2]]
    raise ValueError(window)


def created(new: NewBatch, now: int) -> BatchRecord:
    """Return a new batch at `now`, in seconds since the epoch."""
    batch = Batch(
        id=f"batch_{secrets.token_hex(16)}",
        endpoint=new.endpoint,
        input_file_id=new.input_file_id,
        completion_window=new.completion_window,
        status="validating",
        created_at=now,
        expires_at=now + window_s(new.completion_window),
        metadata=new.metadata,
    )
    return BatchRecord(batch=batch, output=new_id(), errors=new_id())


def begun(record: BatchRecord, counts: RequestCounts, now: int) -> BatchRecord:
    """The input is valid, and its requests run. After a restart the time of the first start stays."""
    status = record.batch.status if record.batch.status == "cancelling" else "in_progress"
    since = record.batch.in_progress_at or now
    return record.with_batch(status=status, in_progress_at=since, request_counts=counts)


def failed(record: BatchRecord, problems: list[BatchProblem], now: int) -> BatchRecord:
    return record.with_batch(status="failed", failed_at=now, errors=BatchProblems(data=problems))


def cancelling(record: BatchRecord, now: int) -> BatchRecord:
    """Return the batch as a client's cancel makes it: no effect once it has ended, or twice."""
    if not record.active or record.batch.status == "cancelling":
        return record
    return record.with_batch(status="cancelling", cancelling_at=now)


def finalizing(record: BatchRecord, now: int) -> BatchRecord:
    return record.with_batch(status="finalizing", finalizing_at=record.batch.finalizing_at or now)


def ended(
    record: BatchRecord, how: Ending, counts: RequestCounts, output: str | None, errors: str | None, now: int
) -> BatchRecord:
    return record.with_batch(
        **{"status": how, f"{how}_at": now, "request_counts": counts, "output_file_id": output, "error_file_id": errors}
    )
