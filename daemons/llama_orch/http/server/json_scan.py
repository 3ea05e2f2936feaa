"""Measures a JSON body while it arrives, and refuses it before anything is built of it.

A parser makes objects of up to 30 times the size of `[{},{},…`, and pydantic describes each wrong item of a list, with
1.6 KB and 10 µs for each: both must be bounded before they begin. The scan counts what stands outside of strings, in
slices, so that it neither holds the event loop nor keeps anything. It need not understand what is no JSON: the parser
stops there, and what comes before has been counted.

Measured per MiB on one core: 1 ms for base64, 6 ms for text, 30 ms for numbers and short strings, of which the limits
let little through.
"""

import re
from dataclasses import dataclass

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem

TEXT_LIMIT = 8 << 20
"""Bytes outside of strings, and of strings with escapes or other than ASCII characters. A parser decodes those at 300
MB/s in one go, with the interpreter's lock held. Plain ASCII, such as an image in base64, costs a tenth and is bounded
by the length of the body alone."""
DIGITS_MOST = 400
"""Digits in a row. Python reads an integer in quadratic time."""

_DIGITS = re.compile(rb"[0-9]{%d}" % DIGITS_MOST)


@dataclass(frozen=True)
class Shape:
    """What a JSON body may have: `values` in all, and of objects, arrays and keys `nodes`."""

    values: int
    nodes: int


class JsonScan:
    """The scan of one body, slice by slice."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._values = self._nodes = 0
        # whether a string is open at the end of what was seen, its length so far, and whether it is plain
        self._inside, self._open, self._plain = False, 0, True
        self._text = 0
        self._carry = b""

    def feed(self, data: bytes) -> None:
        """Take the next slice. Raises ApiError 400 for too many values, too much text, or a number too long."""
        data = self._carry + data
        # half an escape waits for the other half
        self._carry = b"\\" if (len(data) - len(data.rstrip(b"\\"))) % 2 else b""
        data = data.removesuffix(self._carry)
        if b"\\" in data:
            data = data.replace(b"\\\\", b"\\_").replace(b'\\"', b"\\_")
        parts = data.split(b'"')
        outside = b"".join(parts[int(self._inside) :: 2])
        self._text += len(outside)
        self._count(outside)
        self._measure(data, parts)
        if self._text + (0 if self._plain else self._open) > TEXT_LIMIT:
            raise _refusal(f"has more than {TEXT_LIMIT >> 20} MiB of text, not counting plain ASCII such as base64")

    def _count(self, outside: bytes) -> None:
        opened = outside.count(b"{") + outside.count(b"[")
        self._values += opened + outside.count(b",")
        self._nodes += opened + outside.count(b":")
        if self._values > self._shape.values:
            raise _refusal(f"has more than {self._shape.values} values")
        if self._nodes > self._shape.nodes:
            raise _refusal(f"has more than {self._shape.nodes} objects, arrays and keys")
        if _DIGITS.search(outside):
            raise _refusal(f"has a number of {DIGITS_MOST} digits or more")

    def _measure(self, data: bytes, parts: list[bytes]) -> None:
        """Add up the strings that are not plain; one that is open counts when it is known to be such."""
        first, last = parts[0], parts[-1]
        if self._inside:
            self._open += len(first)
            self._plain = self._plain and _is_plain(first)
        if len(parts) == 1:
            return
        self._text += self._open if self._inside and not self._plain else 0
        self._text += 0 if _is_plain(data) else sum(len(part) for part in parts[1:-1] if not _is_plain(part))
        self._inside ^= len(parts) % 2 == 0
        self._open, self._plain = (len(last), _is_plain(last)) if self._inside else (0, True)


def _is_plain(text: bytes) -> bool:
    return text.isascii() and b"\\" not in text


def _refusal(problem: str) -> ApiError:
    hint = "No request that can be served is of this kind: see LIMITS in llama-orch(7)."
    fields = [FieldProblem(field="body", problem=problem)]
    body = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=f"body: {problem}", hint=hint, fields=fields)
    return ApiError(400, body)
