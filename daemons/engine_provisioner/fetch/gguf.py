"""How large a GGUF file must be by its own header, to notice one that is cut off.

Format: ggml/docs/gguf.md. All numbers are little-endian; offsets of tensors count from the end of the header, rounded
up to `general.alignment`.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
COUNT_LIMIT = 1 << 20
STRING_LIMIT = 64 << 20
ALIGNMENT_KEY = b"general.alignment"

STRING, ARRAY = 8, 9
VALUE_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip
"""Weights and bytes of a block by type (ggml.h): F32 0, F16 1, Q4_0 2 … Q8_K 15, I8 24 … F64 28, BF16 30. A tensor of
a type that is not here counts as one byte."""


class NotGguf(Exception):
    """The header cannot be read; the message follows the file's name."""


def needed_size(path: Path) -> int:
    """Return the least size in bytes that the file at `path` can have. Blocks; raises NotGguf and OSError."""
    with path.open("rb") as file:
        try:
            return _needed_size(file)
        except (struct.error, OverflowError) as error:
            raise NotGguf("is not a complete GGUF file: its header is cut off") from error


def _needed_size(file: BinaryIO) -> int:
    if file.read(4) != MAGIC:
        raise NotGguf("is not a GGUF file")
    version = _number(file, "<I")
    if version not in VERSIONS:
        return file.tell()  # an unknown format, which the engine judges
    tensors, keys = _count(file), _count(file)
    alignment = 32
    for _ in range(keys):
        name = _string(file)
        kind = _number(file, "<I")
        if name == ALIGNMENT_KEY and kind == 4:
            alignment = max(1, _number(file, "<I"))
        else:
            _skip_value(file, kind)
    ends = [_tensor_end(file) for _ in range(tensors)]
    header = file.tell()
    return math.ceil(header / alignment) * alignment + max(ends) if ends else header


def _tensor_end(file: BinaryIO) -> int:
    _string(file)
    dimensions = _number(file, "<I")
    if dimensions > 8:
        raise NotGguf("is not a valid GGUF file: a tensor has too many dimensions")
    weights = math.prod(_number(file, "<Q") for _ in range(dimensions))
    kind, offset = _number(file, "<I"), _number(file, "<Q")
    block = BLOCKS.get(kind)
    return offset + (weights // block[0] * block[1] if block else 1)


def _number(file: BinaryIO, layout: str) -> int:
    (value,) = struct.unpack(layout, file.read(struct.calcsize(layout)))
    return int(value)


def _count(file: BinaryIO) -> int:
    count = _number(file, "<Q")
    if count > COUNT_LIMIT:
        raise NotGguf("is not a valid GGUF file: its header has impossible counts")
    return count


def _string(file: BinaryIO) -> bytes:
    length = _number(file, "<Q")
    if length > 65536:
        raise NotGguf("is not a valid GGUF file: its header has an impossible name")
    return file.read(length)


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == STRING:
        _skip(file, _number(file, "<Q"))
    elif kind == ARRAY:
        item, count = _number(file, "<I"), _number(file, "<Q")
        if item == STRING:
            for _ in range(min(count, STRING_LIMIT)):
                _skip(file, _number(file, "<Q"))
        elif item in VALUE_SIZES:
            _skip(file, count * VALUE_SIZES[item])
        else:
            raise NotGguf("is not a valid GGUF file: an array has an unknown type")
    elif kind in VALUE_SIZES:
        _skip(file, VALUE_SIZES[kind])
    else:
        raise NotGguf("is not a valid GGUF file: a value has an unknown type")


def _skip(file: BinaryIO, count: int) -> None:
    if count > STRING_LIMIT:
        raise NotGguf("is not a valid GGUF file: a value has an impossible size")
    file.seek(count, 1)
