"""GGUF files for tests, built byte by byte, so that they may be wrong."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine_provisioner.gguf.formats import SCALARS, ValueType

ALIGNMENT = 32


@dataclass(frozen=True)
class Value:
    """A value of the key-value section; `element` is the type of an array's elements."""

    kind: ValueType
    content: object
    element: ValueType | None = None


def u32(number: int) -> Value:
    return Value(ValueType.UINT32, number)


def string(text: str) -> Value:
    return Value(ValueType.STRING, text)


def array(element: ValueType, items: Sequence[object]) -> Value:
    return Value(ValueType.ARRAY, items, element)


@dataclass(frozen=True)
class FakeTensor:
    """A tensor of 32-bit floats unless `kind` says otherwise."""

    name: str
    dimensions: tuple[int, ...]
    kind: int = 0
    offset: int = 0


def encode_string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def encode(value: Value) -> bytes:
    if value.kind is ValueType.STRING:
        return encode_string(str(value.content))
    if value.kind is ValueType.ARRAY:
        assert value.element is not None
        assert isinstance(value.content, Iterable)
        items = [item if isinstance(item, Value) else Value(value.element, item) for item in value.content]
        return struct.pack("<IQ", value.element, len(items)) + b"".join(map(encode, items))
    return SCALARS[value.kind].pack(value.content)


def gguf_bytes(
    keys: dict[str, Value], tensors: Sequence[FakeTensor] = (), data_bytes: int = 0, version: int = 3
) -> bytes:
    """Return a file with these keys and tensors, and `data_bytes` of zeros as tensor data."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    head += b"".join(encode_string(key) + struct.pack("<I", value.kind) + encode(value) for key, value in keys.items())
    for tensor in tensors:
        dimensions = struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions)
        head += encode_string(tensor.name) + struct.pack("<I", len(tensor.dimensions)) + dimensions
        head += struct.pack("<IQ", tensor.kind, tensor.offset)
    return head + b"\0" * (-len(head) % ALIGNMENT) + b"\0" * data_bytes


LLAMA = {
    "general.architecture": string("llama"),
    "general.name": string("Tiny"),
    "general.file_type": u32(15),
    "llama.context_length": u32(2048),
    "llama.block_count": u32(2),
    "llama.embedding_length": u32(64),
    "llama.feed_forward_length": u32(192),
    "llama.attention.head_count": u32(8),
    "llama.attention.head_count_kv": u32(2),
    "tokenizer.ggml.tokens": array(ValueType.STRING, ["a", "b", "cc"]),
    "tokenizer.chat_template": string("{{ messages }}"),
}
"""The keys of a small LLaMA model."""
