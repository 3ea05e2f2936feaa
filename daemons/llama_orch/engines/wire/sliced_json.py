"""JSON with long texts, encoded slice by slice.

Beside the event loop, in a thread: the standard library's encoder, and pydantic's, hold the interpreter's lock for as
long as they take for a whole text, and that is 160 ms for a photo of 30 MB in base64. Between slices others run.
"""

import json
from collections.abc import Iterator

LONG = 1 << 20

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def sliced(value: object) -> Iterator[bytes]:
    """`value` as JSON in UTF-8, in pieces of which only those with many short values are long."""
    homes: set[int] = set()
    if not isinstance(value, str):
        _find_long(value, homes)
    return _pieces(value, homes)


def _find_long(value: object, homes: set[int]) -> bool:
    """Whether `value` is a long text or has one; objects and arrays that do are put into `homes`."""
    if isinstance(value, str):
        return len(value) > LONG
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    found = [_find_long(one, homes) for one in inner]
    if any(found):
        homes.add(id(value))
    return any(found)


def _pieces(value: object, homes: set[int]) -> Iterator[bytes]:
    if isinstance(value, str) and len(value) > LONG:
        yield b'"'
        for at in range(0, len(value), LONG):
            yield _bytes(value[at : at + LONG])[1:-1]
        yield b'"'
    elif id(value) not in homes:
        yield _bytes(value)
    elif isinstance(value, dict):
        for number, (name, one) in enumerate(value.items()):
            yield (b", " if number else b"{") + _bytes(name) + b": "
            yield from _pieces(one, homes)
        yield b"}"
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield b", " if number else b"["
            yield from _pieces(one, homes)
        yield b"]"


def _bytes(value: object) -> bytes:
    return _ENCODE(value).encode("utf-8", "replace")
