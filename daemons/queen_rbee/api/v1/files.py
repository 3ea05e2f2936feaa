"""Routes of /v1/files: what batches read and write."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import trio
from quart import request

from llama_orch.contracts.batches import Batch, FileDeleted, FileList, FileObject
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, not_found
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.exchange import BrokenOff, Exchange
from llama_orch.http.server.multipart import Form
from llama_orch.http.server.routes import JSON, Parameter, Reply, gate_route, json_reply, route
from queen_rbee.api.parameters import TEXT
from queen_rbee.batches.batches import Batches, writing
from queen_rbee.batches.files import FILE_LIMIT, Draft, Files

FORM_BYTES = 64 << 10
"""What a form has besides its file, at most."""
CHUNK = 256 << 10
PAGE, LARGEST_PAGE = 20, 10_000
LIMIT = Parameter(
    "limit",
    "The largest number of entries to return.",
    {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE},
)
AFTER = Parameter("after", "The id of the last entry of the previous page.", TEXT)
PURPOSES = ("batch", "batch_output")
Entry = TypeVar("Entry", FileObject, Batch)


class FileRoutes:
    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._files = batches.files

    @gate_route(
        "POST",
        "/v1/files",
        "Store a file",
        {200: json_reply("The file.", FileObject, file_id="/id")},
        errors=(400, 404, 408, 413, 415, 503),
        description="The body is multipart/form-data with the fields `purpose`, which must be `batch`, and `file`: at "
        "most 200 MiB. All files together have the quota that ORCHD_FILES_QUOTA_MB sets.",
    )
    async def upload_file(self, exchange: Exchange) -> None:
        self._batches.check_enabled()
        upload = Upload(self._files, Form(exchange.headers.get("content-type", "")))
        with writing():
            await upload.begin()
            try:
                await exchange.body_into(upload.take, FILE_LIMIT + FORM_BYTES)
                kept = await upload.end()
            except BaseException:
                with trio.CancelScope(shield=True):
                    await upload.drop()
                raise
        await exchange.send(200, kept.model_dump_json().encode(), [("content-type", JSON)])

    @route(
        "GET",
        "/v1/files",
        "List the files, newest first",
        {200: json_reply("The files.", FileList, file_id="/data/0/id")},
        parameters=(
            Parameter("purpose", "Only files with this purpose.", {**TEXT, "enum": [*PURPOSES]}),
            LIMIT,
            AFTER,
        ),
        errors=(400, 404),
    )
    async def list_files(self) -> FileList:
        self._batches.check_enabled()
        purpose = request.args.get("purpose")
        if purpose is not None and purpose not in PURPOSES:
            raise ApiError(400, invalid([("purpose", f"must be {' or '.join(PURPOSES)}")]))
        listed = [each for each in self._files.newest_first() if purpose in (None, each.purpose)]
        page, more = page_of(listed, request.args)
        return FileList(
            data=page, has_more=more, first_id=page[0].id if page else None, last_id=page[-1].id if page else None
        )

    @route("GET", "/v1/files/{file_id}", "Get a file's description", {200: json_reply("The file.", FileObject)})
    async def get_file(self, file_id: str) -> FileObject:
        return self._known(file_id)

    @gate_route(
        "GET",
        "/v1/files/{file_id}/content",
        "Get a file's contents",
        {200: Reply("The contents.", {"application/octet-stream": {"type": "string", "format": "binary"}})},
        errors=(503,),
    )
    async def get_file_content(self, exchange: Exchange) -> None:
        await exchange.body()
        known = self._known(exchange.variables["file_id"])
        with writing():
            file = await trio.to_thread.run_sync(self._files.open, known.id)
        try:
            fields = [("content-type", "application/octet-stream"), ("content-length", str(known.bytes))]
            await exchange.open_stream(200, fields)
            left = known.bytes
            while left:
                data = await trio.to_thread.run_sync(file.read, min(CHUNK, left))
                if not data:
                    raise BrokenOff  # the file was deleted or shortened meanwhile
                left -= len(data)
                await exchange.write(data)
            await exchange.finish()
        finally:
            file.close()

    @route(
        "DELETE",
        "/v1/files/{file_id}",
        "Delete a file",
        {200: json_reply("The file is deleted.", FileDeleted)},
        errors=(409, 503),
    )
    async def delete_file(self, file_id: str) -> FileDeleted:
        await self._batches.delete_file(file_id)
        return FileDeleted(id=file_id)

    def _known(self, file_id: str) -> FileObject:
        self._batches.check_enabled()
        if known := self._files.get(file_id):
            return known
        raise not_found("file", file_id, "GET /v1/files lists them.")


class Upload:
    """A file that a client sends as a form. Whoever begins it ends or drops it."""

    def __init__(self, files: Files, form: Form) -> None:
        self._files = files
        self._form = form
        self._draft: Draft | None = None
        self._pending = bytearray()

    async def begin(self) -> None:
        """Raises OSError, QuotaExceeded."""
        self._draft = await trio.to_thread.run_sync(self._files.draft)

    async def take(self, data: bytes | None) -> None:
        """Take a piece of the form. Raises ApiError, OSError, QuotaExceeded."""
        for part in self._form.feed(data):
            self._pending += part
        if len(self._pending) >= CHUNK:
            await self._flush()

    async def _flush(self) -> None:
        assert self._draft
        data, self._pending = bytes(self._pending), bytearray()
        await trio.to_thread.run_sync(self._files.append, self._draft, data)

    async def end(self) -> FileObject:
        """Check the form and keep the file. Raises as `take` does."""
        assert self._draft
        await self.take(None)
        await self._flush()
        if self._form.filename is None:
            raise ApiError(400, invalid([("file", "is missing: a part with a filename")]))
        if (purpose := self._form.fields.get("purpose")) != "batch":
            problem = "is missing" if purpose is None else f"is {purpose[:64]!r}"
            raise ApiError(400, invalid([("purpose", f"{problem}; it must be 'batch'")]))
        if self._draft.size > FILE_LIMIT:
            message = f"the file is longer than {FILE_LIMIT} bytes"
            raise ApiError(413, ErrorBody(code=ErrorCode.INVALID_PARAMS, message=message))
        keep = partial(self._files.keep, self._draft, self._form.filename, "batch")
        return await trio.to_thread.run_sync(keep)

    async def drop(self) -> None:
        """Remove what was received. Raises OSError."""
        if self._draft:
            await trio.to_thread.run_sync(self._files.drop, self._draft)


def page_of(entries: Sequence[Entry], query: Mapping[str, str]) -> tuple[list[Entry], bool]:
    """Return the page that `limit` and `after` select, and whether there is more. Raises ApiError 400."""
    text = query.get("limit", str(PAGE))
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= LARGEST_PAGE):
        raise ApiError(400, invalid([("limit", f"must be from 1 to {LARGEST_PAGE}")]))
    ids = [each.id for each in entries]
    after = query.get("after")
    if after is not None and after not in ids:
        raise ApiError(400, invalid([("after", "must be the id of an entry that exists")]))
    begin = 0 if after is None else ids.index(after) + 1
    end = begin + int(text)
    return list(entries[begin:end]), end < len(entries)
