"""JSON encoding of long strings in slices, for use in a thread.

The standard library's encoder, and pydantic's, hold the interpreter's lock for a whole string: 160 ms for a photo of
30 MB in base64. Between slices other threads run.
"""

import json
from collections.abc import Iterator

SLICE = 1 << 20

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def sliced(value: object) -> Iterator[bytes]:
    """Yield `value` as JSON in UTF-8. Only pieces made of many short values may be long."""
    containers: set[int] = set()
    if not isinstance(value, str):
        _find_long(value, containers)
    return _pieces(value, containers)


def _find_long(value: object, containers: set[int]) -> bool:
    """Whether `value` is or contains a long string; adds objects and arrays that do to `containers`."""
    if isinstance(value, str):
        return len(value) > SLICE
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    found = [_find_long(one, containers) for one in inner]
    if any(found):
        containers.add(id(value))
    return any(found)


def _pieces(value: object, containers: set[int]) -> Iterator[bytes]:
    if isinstance(value, str) and len(value) > SLICE:
        yield b'"'
        for at in range(0, len(value), SLICE):
            yield _bytes(value[at : at + SLICE])[1:-1]
        yield b'"'
    elif id(value) not in containers:
        yield _bytes(value)
    elif isinstance(value, dict):
        for number, (name, one) in enumerate(value.items()):
            yield (b", " if number else b"{") + _bytes(name) + b": "
            yield from _pieces(one, containers)
        yield b"}"
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield b", " if number else b"["
            yield from _pieces(one, containers)
        yield b"]"


def _bytes(value: object) -> bytes:
    return _ENCODE(value).encode("utf-8", "replace")
