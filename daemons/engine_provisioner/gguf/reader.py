"""Read the header of a GGUF file, the format of llama.cpp's models.

Specification: docs/gguf.md of ggml. Only the header is read, never tensor data, and the arrays of the tokenizer are
skipped. Every length and count in the file is bounded, so that a hostile file costs little time and memory.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from engine_provisioner.gguf.formats import SCALARS, ValueType
from engine_provisioner.gguf.header import GgufHeader
from engine_provisioner.gguf.metadata import (
    Metadata,
    Scalar,
    Tensor,
    Value,
    attention_of,
    quantization_of,
    recurrence_of,
    sized,
    weights_of,
)
from engine_provisioner.gguf.source import GgufError, Source, open_regular

__all__ = ["GgufError", "read_chat_template", "read_header"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
BIG_ENDIAN = frozenset(version << 24 for version in (1, 2, 3))
KEYS_LIMIT = 4096
"""Models have about 50 keys."""
KEY_BYTES = 256
TEXT_BYTES = 4096
"""Longer texts are skipped, except the chat template."""
TEMPLATE_BYTES = 4 << 20
LIST_LIMIT = 4096
"""Elements of an array that is kept, such as one for each layer; longer ones are skipped."""
NESTING_LIMIT = 4
TENSORS_LIMIT = 1 << 17
NAME_BYTES = 256
DIMENSIONS_LIMIT = 8
ELEMENTS_LIMIT = 1 << 48
ALIGNMENT_DEFAULT, ALIGNMENT_LIMIT = 32, 1 << 20

CHAT_TEMPLATE = "tokenizer.chat_template"
TOKENIZER = "tokenizer."


def read_header(path: Path) -> GgufHeader:
    """Read the header of the file at `path`. Blocks; raises GgufError and OSError."""
    with open_regular(path) as file:
        source = Source(file)
        version, tensor_count, key_count = _begin(source)
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        has_template = False
        for key, kind in _keys(source, key_count):
            has_template = has_template or key == CHAT_TEMPLATE
            _read(source, key, kind, values, lengths)
        tensors = [_tensor(source) for _ in range(tensor_count)]
    return _header(version, Metadata(values, lengths), tensors, source, has_template=has_template)


def header_of(path: Path) -> GgufHeader | None:
    """Return the header of the file at `path`, None if it is no readable GGUF file. Blocks."""
    try:
        return read_header(path)
    except (GgufError, OSError):
        return None


def read_chat_template(path: Path) -> str | None:
    """Return the chat template in the file at `path`, or None. Blocks; raises GgufError and OSError."""
    with open_regular(path) as file:
        source = Source(file)
        _version, _tensors, key_count = _begin(source)
        for key, kind in _keys(source, key_count):
            if key == CHAT_TEMPLATE and kind is ValueType.STRING:
                return source.text(TEMPLATE_BYTES, "its chat template")
            _skip(source, kind)
    return None


def _begin(source: Source) -> tuple[int, int, int]:
    """Read the fixed part; return version, number of tensors and number of keys."""
    if source.size < len(MAGIC) or source.take(4) != MAGIC:
        raise GgufError("it is not a GGUF file")
    version = source.uint32()
    if version in BIG_ENDIAN:
        raise GgufError("it is a big-endian GGUF file, for other processors")
    if version not in VERSIONS:
        raise GgufError(f"it has version {version} of GGUF (llama.cpp reads versions 2 and 3)")
    tensors, keys = source.uint64(), source.uint64()
    if tensors > TENSORS_LIMIT:
        raise GgufError(f"it has {tensors} tensors (at most {TENSORS_LIMIT} are allowed)")
    if keys > KEYS_LIMIT:
        raise GgufError(f"it has {keys} keys (at most {KEYS_LIMIT} are allowed)")
    return version, tensors, keys


def _keys(source: Source, count: int) -> Iterator[tuple[str, ValueType]]:
    """Yield each key with the type of its value. The caller reads or skips the value before it asks for the next."""
    for _ in range(count):
        key = source.text(KEY_BYTES, "the name of a key")
        yield key, _value_type(source)


def _value_type(source: Source) -> ValueType:
    number = source.uint32()
    try:
        return ValueType(number)
    except ValueError as error:
        raise GgufError(f"it has a value of the unknown type {number}") from error


def _read(source: Source, key: str, kind: ValueType, values: dict[str, Value], lengths: dict[str, int]) -> None:
    """Read the value of `key` into `values` if it may describe the model, and the length of an array into `lengths`."""
    if key in values or key in lengths:
        raise GgufError(f"it has the key {key} twice")
    if kind is ValueType.ARRAY:
        element, count = _value_type(source), source.uint64()
        lengths[key] = count
        if element in SCALARS and count <= LIST_LIMIT and not key.startswith(TOKENIZER):
            values[key] = tuple(_scalar(source, element) for _ in range(count))
        else:
            _skip_elements(source, element, count)
    elif kind is ValueType.STRING:
        text = source.short_text(TEXT_BYTES)
        if text is not None:
            values[key] = text
    else:
        values[key] = _scalar(source, kind)


def _scalar(source: Source, kind: ValueType) -> Scalar:
    form = SCALARS[kind]
    value: Scalar = form.unpack(source.take(form.size))[0]
    return value


def _skip(source: Source, kind: ValueType, nesting: int = 0) -> None:
    if kind is ValueType.STRING:
        source.skip(source.uint64())
    elif kind is ValueType.ARRAY:
        _skip_elements(source, _value_type(source), source.uint64(), nesting)
    else:
        source.skip(SCALARS[kind].size)


def _skip_elements(source: Source, kind: ValueType, count: int, nesting: int = 0) -> None:
    if kind in SCALARS:
        source.skip(SCALARS[kind].size * count)
    elif kind is ValueType.STRING:
        source.skip_strings(count)
    elif nesting >= NESTING_LIMIT or count > LIST_LIMIT:
        raise GgufError("it has an array of arrays that is too deep or too long")
    else:
        for _ in range(count):
            _skip(source, kind, nesting + 1)


def _tensor(source: Source) -> Tensor:
    name = source.text(NAME_BYTES, "the name of a tensor")
    dimensions = source.uint32()
    if dimensions > DIMENSIONS_LIMIT:
        raise GgufError(f"the tensor {name} has {dimensions} dimensions (at most {DIMENSIONS_LIMIT} are allowed)")
    elements = math.prod(source.uint64() for _ in range(dimensions))
    kind, offset = source.uint32(), source.uint64()
    if elements > ELEMENTS_LIMIT or offset > ELEMENTS_LIMIT:
        raise GgufError(f"the tensor {name} has an impossible size or place")
    return Tensor(name, elements, kind, offset)


def _header(
    version: int, metadata: Metadata, tensors: list[Tensor], source: Source, *, has_template: bool
) -> GgufHeader:
    alignment = metadata.count("general.alignment") or ALIGNMENT_DEFAULT
    if alignment > ALIGNMENT_LIMIT:
        raise GgufError(f"its alignment is {alignment} bytes (at most {ALIGNMENT_LIMIT} are allowed)")
    data_offset = -(-source.position // alignment) * alignment
    placed = sized(tensors, max(0, source.size - data_offset))
    end = data_offset + max((tensor.offset + size for tensor, size in placed), default=0)
    return GgufHeader(
        version=version,
        architecture=metadata.architecture,
        name=metadata.text("general.name"),
        quantization=quantization_of(metadata, placed),
        context_length=metadata.of_model("context_length"),
        block_count=metadata.layers,
        embedding_length=metadata.of_model("embedding_length"),
        feed_forward_length=metadata.of_model("feed_forward_length"),
        vocabulary_size=metadata.vocabulary,
        expert_count=metadata.of_model("expert_count"),
        experts_used=metadata.of_model("expert_used_count"),
        expert_feed_forward_length=metadata.of_model("expert_feed_forward_length"),
        attention=attention_of(metadata),
        recurrence=recurrence_of(metadata),
        full_attention_interval=metadata.of_model("full_attention_interval"),
        has_chat_template=has_template,
        tensor_count=len(tensors),
        weights=weights_of(placed, metadata.layers),
        data_offset=data_offset,
        file_bytes=source.size,
        truncated_by=max(0, end - source.size) if placed else 0,
        split_count=metadata.count("split.count"),
        split_no=metadata.count("split.no"),
    )
