"""OpenAI's files and batches: what clients send, what they get, and what queen-rbee keeps on disk."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound

FILE_ID_PATTERN = r"^file-[0-9a-f]{32}$"
BATCH_ID_PATTERN = r"^batch_[0-9a-f]{32}$"
METADATA_ENTRIES = 16
Url = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
"""The endpoints whose requests a batch may have."""
BatchState = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=METADATA_ENTRIES),
]


class FileObject(Outbound):
    """A file on the queen. Times are in seconds since the epoch, `bytes` is its length."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"


class FileList(Outbound):
    """GET /v1/files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class FileDeleted(Outbound):
    """DELETE /v1/files/{file_id}."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class NewBatch(Inbound):
    """POST /v1/batches."""

    input_file_id: Annotated[str, StringConstraints(max_length=64)]
    endpoint: Url
    completion_window: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,2}h|[1-9][0-9]?d)$")] = "24h"
    metadata: Metadata | None = None


class BatchProblem(Outbound):
    """Why a batch failed. `line` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchProblems(Outbound):
    object: Literal["list"] = "list"
    data: list[BatchProblem] = []


class RequestCounts(Outbound):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(Outbound):
    """A batch. Times are in seconds since the epoch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: Url
    errors: BatchProblems | None = None
    input_file_id: str
    completion_window: str
    status: BatchState
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    metadata: dict[str, str] | None = None


class BatchList(Outbound):
    """GET /v1/batches."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class BatchLine(Outbound):
    """A line of the input file."""

    custom_id: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: Url
    body: dict[str, JsonValue]
