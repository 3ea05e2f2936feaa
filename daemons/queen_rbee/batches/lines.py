"""The lines of a batch's files: check the input, write results, and find what is done after a restart. Pure functions.

A result is one line of JSON that ends with a newline. A process that is killed while it writes leaves a part of a line,
which `finished` does not count and the next start cuts off.
"""

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from llama_orch.contracts.batches import BatchLine, BatchProblem, Url
from llama_orch.contracts.validation import dotted, invalid_fields

LINES_LIMIT = 50_000
"""As OpenAI's."""
LINE_BYTES = 4 << 20
PROBLEMS_LIMIT = 20
DIGEST_BYTES = 16


@dataclass
class Index:
    """Where each request begins in the input file, and which line has which custom_id."""

    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    line_of: dict[bytes, int] = field(default_factory=dict)
    """The index of a line, by the digest of its custom_id."""
    problems: list[BatchProblem] = field(default_factory=list)


def digest(custom_id: str) -> bytes:
    return blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def index(lines: Iterable[bytes], endpoint: Url) -> Index:
    """Check each line; `lines` are those of the input file with their ends. Empty lines are passed over."""
    found, offset = Index(), 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            _add(found, number, offset, line, endpoint)
        offset += len(line)
        if len(found.problems) >= PROBLEMS_LIMIT:
            return found
        if len(found.starts) > LINES_LIMIT:
            found.problems.append(_problem("too_many_lines", f"a batch has at most {LINES_LIMIT} requests", number))
            return found
    if not found.starts and not found.problems:
        found.problems.append(_problem("empty_file", "the file has no requests"))
    return found


def _add(found: Index, number: int, offset: int, line: bytes, endpoint: Url) -> None:
    try:
        request = parsed(line)
    except ValueError as error:
        found.problems.append(_problem("invalid_line", str(error), number))
        return
    key = digest(request.custom_id)
    if request.url != endpoint:
        text = f"is {request.url}, but the batch's endpoint is {endpoint}"
        found.problems.append(_problem("mismatched_url", f"url: {text}", number, "url"))
    elif key in found.line_of:
        text = "custom_id: an earlier line has the same"
        found.problems.append(_problem("duplicate_custom_id", text, number, "custom_id"))
    else:
        found.line_of[key] = len(found.starts)
        found.starts.append(offset)


def parsed(line: bytes) -> BatchLine:
    """Parse a request. Raises ValueError that says in words what is wrong."""
    if len(line) > LINE_BYTES:
        raise ValueError(f"the line is longer than {LINE_BYTES} bytes")
    try:
        document = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"the line is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("the line must be a JSON object")
    try:
        return BatchLine.model_validate(document)
    except ValidationError as error:
        problems = [f"{dotted(each.location)}: {each.text}" for each in invalid_fields(error)]
        raise ValueError("; ".join(problems[:PROBLEMS_LIMIT])) from error


def _problem(code: str, message: str, line: int | None = None, param: str | None = None) -> BatchProblem:
    return BatchProblem(code=code, message=message, line=line, param=param)


def result(custom_id: str, request_id: str, status: int, body: bytes) -> bytes:
    """Return the line of a request that was answered with `status` and `body`, which is JSON."""
    name, identifier = json.dumps(custom_id), json.dumps(request_id)
    head = f'{{"id":{json.dumps(f"batch_req_{request_id}")},"custom_id":{name},"response":{{"status_code":{status},'
    body = body.replace(b"\n", b" ")  # JSON has no newline within a string
    return head.encode() + f'"request_id":{identifier},"body":'.encode() + body + b'},"error":null}\n'


def unanswered(custom_id: str, identifier: str, code: str, message: str) -> bytes:
    """Return the line of a request that was not answered."""
    error: JsonValue = {"code": code, "message": message}
    document = {"id": f"batch_req_{identifier}", "custom_id": custom_id, "response": None, "error": error}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def finished(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the digest of each custom_id that a result file has, and the offset after its line."""
    offset = 0
    for line in lines:
        if not line.endswith(b"\n"):
            return
        offset += len(line)
        try:
            custom_id = from_json(line)["custom_id"]
        except (ValueError, KeyError, TypeError):
            continue  # not a line of ours: a power cut may leave zeros
        if isinstance(custom_id, str):
            yield digest(custom_id), offset
