"""orchctl batch: run the requests of a file, see how far they are, and fetch the results."""

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import trio

from llama_orch.contracts.batches import Batch, BatchList, FileObject
from llama_orch.http.client.client import UpstreamError
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.command import CliCommand, ListedValues, argument, identifier
from orchctl.errors import CommandError
from orchctl.lists import LIST_ARGUMENTS, print_one
from orchctl.output import print_response
from orchctl.tables import format_record, format_table, one_line

FILES, BATCHES = "/v1/files", "/v1/batches"
FILE_LIMIT = 200 << 20
HEADER = ("BATCH", "STATE", "DONE", "FAILED", "TOTAL", "ENDPOINT")
BATCH_IDS = ListedValues("batch")
ENDED = ("completed", "failed", "expired", "cancelled")
POLL_S = 1.0
UPLOAD_S = 600.0


async def submit(options: argparse.Namespace, queen: QueenClient) -> None:
    """Upload a file and run its requests. Raises CommandError, with --wait also if the batch does not complete."""
    content = _read(options.file)
    endpoint = options.endpoint or _first_url(options.file, content)
    uploaded = await _upload(queen, Path(options.file).name, content)
    new = {"input_file_id": uploaded.id, "endpoint": endpoint, "completion_window": options.window}
    body = await queen.call("POST", BATCHES, new)
    if options.wait:
        body = await _ended(queen, parse_response(Batch, body).id)
    print_response(options.json, body, Batch, format_record)
    if options.wait and (batch := parse_response(Batch, body)).status != "completed":
        raise CommandError(f"the batch is {batch.status}", "", ExitStatus.UNAVAILABLE)


def _read(name: str) -> bytes:
    """Raises CommandError."""
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}", "", ExitStatus.NO_INPUT) from error
    if len(content) > FILE_LIMIT:
        raise CommandError(f"{name} is longer than 200 MiB", "Split it into several batches.", ExitStatus.DATA)
    return content


def _first_url(name: str, content: bytes) -> str:
    """Return the URL of the first request, which all have. Raises CommandError."""
    try:
        return str(json.loads(content.lstrip().partition(b"\n")[0])["url"])
    except (ValueError, KeyError, TypeError) as error:
        hint = 'Each line is a request: {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}'
        raise CommandError(f"{name}: the first line is not a request of a batch", hint, ExitStatus.DATA) from error


async def _upload(queen: QueenClient, name: str, content: bytes) -> FileObject:
    boundary = secrets.token_hex(16)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\n", " ")
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\n'
    )
    body = b"".join((parts.encode("utf-8", "replace"), content, f"\r\n--{boundary}--\r\n".encode()))
    fields = {"content-type": f"multipart/form-data; boundary={boundary}"}
    try:
        async with queen.request("POST", FILES, body, fields, head_s=UPLOAD_S) as response:
            return parse_response(FileObject, await response.read(limit_s=UPLOAD_S))
    except UpstreamError as error:
        raise queen.unreachable(error) from error


async def _ended(queen: QueenClient, batch_id: str) -> bytes:
    while True:
        body = await queen.get(build_path(BATCHES, batch_id))
        if parse_response(Batch, body).status in ENDED:
            return body
        await trio.sleep(POLL_S)


async def status(options: argparse.Namespace, queen: QueenClient) -> None:
    """List the batches, or show one. Raises CommandError."""
    if options.id is None:
        await list_batches(options, queen)
        return
    body = await queen.get(build_path(BATCHES, options.id))
    print_one(options, body, Batch, format_record, lambda one: [one.id])


async def list_batches(options: argparse.Namespace, queen: QueenClient) -> None:
    body = await queen.get(build_path(BATCHES, limit=1000))
    print_one(options, body, BatchList, lambda listed: format_batches(listed.data), lambda each: _ids(each.data))


def _ids(batches: Sequence[Batch]) -> list[str]:
    return [batch.id for batch in batches]


def format_batches(batches: Sequence[Batch]) -> str:
    return format_table([HEADER, *map(_row, batches)]) if batches else "there are no batches"


def _row(batch: Batch) -> tuple[str, ...]:
    counts = batch.request_counts
    return (
        batch.id,
        batch.status,
        str(counts.completed),
        str(counts.failed),
        str(counts.total),
        one_line(batch.endpoint),
    )


async def fetch(options: argparse.Namespace, queen: QueenClient) -> None:
    """Write the results of a batch, or with --errors its failures. Raises CommandError."""
    batch = parse_response(Batch, await queen.get(build_path(BATCHES, options.id)))
    file_id = batch.error_file_id if options.errors else batch.output_file_id
    if file_id is None:
        if batch.status not in ENDED:
            raise CommandError(f"the batch is {batch.status}", "Its files appear when it ends.", ExitStatus.TEMPORARY)
        raise CommandError(f"the batch has no {'failures' if options.errors else 'results'}", "", ExitStatus.NO_INPUT)
    path = build_path(FILES, file_id, "content")
    if options.to is None:
        await _download(queen, path, sys.stdout.buffer)
        return
    try:
        with open(options.to, "xb") as file:  # noqa: ASYNC230 -- nothing else runs in this process
            await _download(queen, path, file)
    except OSError as error:
        message = f"cannot write {options.to}: {error.strerror}"
        raise CommandError(message, "", ExitStatus.CANNOT_CREATE) from error


async def _download(queen: QueenClient, path: str, file: BinaryIO) -> None:
    try:
        async with queen.request("GET", path) as response:
            async for chunk in response.chunks():
                file.write(chunk)
            file.flush()
    except UpstreamError as error:
        raise queen.unreachable(error) from error


async def cancel(options: argparse.Namespace, queen: QueenClient) -> None:
    body = await queen.call("POST", build_path(BATCHES, options.id, "cancel"))
    print_response(options.json, body, Batch, format_record)


ID = partial(argument, "id", type=identifier, completion=BATCH_IDS)
BATCH = CliCommand(
    "batch",
    "run the requests of a file when nobody else needs the engines",
    list_batches,
    LIST_ARGUMENTS,
    [
        CliCommand(
            "submit",
            "upload a file of requests and run them",
            submit,
            [
                argument("file", metavar="FILE", completion="files", help="one request as JSON on each line"),
                argument("--endpoint", metavar="PATH", help="path of all requests (default: that of the first one)"),
                argument(
                    "--window", metavar="TIME", default="24h", help="give up after this time, such as 2h or 7d (24h)"
                ),
                argument("--wait", action="store_true", help="wait until the batch has ended"),
            ],
        ),
        CliCommand(
            "status",
            "list the batches, newest first, or show one",
            status,
            [ID(nargs="?", help="show all fields of this batch"), *LIST_ARGUMENTS],
        ),
        CliCommand(
            "fetch",
            "write the results of a batch",
            fetch,
            [
                ID(help="batch whose results to write"),
                argument("--errors", action="store_true", help="write the failures instead"),
                argument("--to", metavar="FILE", completion="files", help="write to this new file, not to stdout"),
            ],
        ),
        CliCommand("cancel", "stop a batch; what is done stays", cancel, [ID(help="batch to stop")]),
    ],
)
