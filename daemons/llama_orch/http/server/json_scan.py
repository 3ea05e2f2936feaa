"""Bound the structure of a JSON body while it arrives, before it is parsed.

For a body such as `[{},{},…` a parser builds objects of up to 30 times its size, and pydantic takes 1.6 KB and 10 µs
to describe each invalid item of a list. The scan counts the values, objects and keys outside of strings. It works in
slices, so it neither blocks the event loop nor stores the body. It need not detect invalid JSON: the parser stops
there, and everything before has been counted.

Measured per MiB on one core: 1 ms for base64, 6 ms for text, 30 ms for numbers and short strings, of which the limits
admit little.
"""

import re
from dataclasses import dataclass

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem

TEXT_LIMIT = 8 << 20
"""Bytes outside of strings plus bytes of strings with escapes or non-ASCII characters. A parser decodes those at 300
MB/s in one call, with the GIL held. Plain ASCII, such as an image in base64, costs a tenth and is limited only by the
length of the body."""
DIGIT_LIMIT = 400
"""Consecutive digits. Python parses an integer in quadratic time."""

_DIGITS = re.compile(rb"[0-9]{%d}" % DIGIT_LIMIT)


@dataclass(frozen=True)
class Shape:
    """Limits of a JSON body: the number of values, and of objects, arrays and keys together (`nodes`)."""

    values: int
    nodes: int


class JsonScan:
    """Scans one body, slice by slice."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._values = self._nodes = 0
        # state at the end of the last slice: inside a string?, the length of that string so far, is it plain ASCII?
        self._inside, self._open, self._plain = False, 0, True
        self._text = 0
        self._carry = b""

    def feed(self, data: bytes) -> None:
        """Scan the next slice. Raises ApiError 400 for too many values, too much text, or too long a number."""
        data = self._carry + data
        # keep half of an escape sequence for the next slice
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
            raise _refusal(f"has a number of {DIGIT_LIMIT} digits or more")

    def _measure(self, data: bytes, parts: list[bytes]) -> None:
        """Add up the strings that are not plain. A string that is still open counts when it proves not to be plain."""
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
    hint = "See LIMITS in llama-orch(7)."
    fields = [FieldProblem(field="body", problem=problem)]
    body = ErrorBody(code=ErrorCode.INVALID_PARAMS, message=f"body: {problem}", hint=hint, fields=fields)
    return ApiError(400, body)
