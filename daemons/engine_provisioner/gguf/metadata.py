"""From the keys and tensors of a GGUF file to what they mean. Pure; all values may be hostile."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine_provisioner.gguf.formats import QUANTIZATIONS, TENSOR_TYPES
from engine_provisioner.gguf.header import Attention, Recurrence, Weights

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]

COUNT_LIMIT = 1 << 40
"""Larger numbers mean nothing, and count as unknown."""
LAYERS_LIMIT = 4096
BLOCK = re.compile(r"blk\.([0-9]{1,4})\.")
INPUT_TENSORS = ("token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")
OUTPUT_TENSOR = "output.weight"
TOKENS = "tokenizer.ggml.tokens"


@dataclass(frozen=True)
class Tensor:
    """The description of a tensor. `offset` is in bytes from the begin of the data."""

    name: str
    elements: int
    kind: int
    offset: int

    @property
    def size_bytes(self) -> int | None:
        """None for a type that this release does not know."""
        if self.kind not in TENSOR_TYPES:
            return None
        _name, elements, size = TENSOR_TYPES[self.kind]
        return -(-self.elements // elements) * size


@dataclass(frozen=True)
class Metadata:
    """The values of the keys that describe the model, and the lengths of all arrays."""

    values: Mapping[str, Value]
    lengths: Mapping[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or "unknown"

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def count(self, key: str) -> int:
        """Return a number that is not negative; 0 if it is missing or makes no sense."""
        return _count(self.values.get(key))

    def of_model(self, key: str) -> int:
        """Return the count `ARCHITECTURE.key`. If the file has one for each layer, return the largest."""
        return max(self.each(key), default=0)

    def each(self, key: str) -> tuple[int, ...]:
        """Return the counts `ARCHITECTURE.key`: one, or one for each layer; empty if there are none."""
        value = self.values.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple):
            return tuple(map(_count, value))
        return () if value is None else (_count(value),)

    @property
    def layers(self) -> int:
        return min(self.of_model("block_count"), LAYERS_LIMIT)

    @property
    def vocabulary(self) -> int:
        return self.lengths.get(TOKENS, 0) or self.of_model("vocab_size")

    def for_layers(self, key: str) -> tuple[int, ...]:
        """Return the counts `ARCHITECTURE.key`, one for each layer; empty if the file has none."""
        found = self.each(key)
        if len(found) == 1:
            return found * self.layers
        return (found + (0,) * self.layers)[: self.layers] if found else ()


def _count(value: object) -> int:
    if isinstance(value, int) and 0 <= value <= COUNT_LIMIT:
        return int(value)
    return 0


def attention_of(metadata: Metadata) -> Attention:
    """Return the attention that the keys describe, with llama.cpp's defaults for missing ones."""
    heads = metadata.for_layers("attention.head_count")
    kv_heads = metadata.for_layers("attention.head_count_kv") or heads
    embedding = metadata.of_model("embedding_length")
    default = embedding // max(heads, default=1) if any(heads) else 0
    key_length = metadata.of_model("attention.key_length") or default
    value_length = metadata.of_model("attention.value_length") or default
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        key_length=key_length,
        value_length=value_length,
        swa_key_length=metadata.of_model("attention.key_length_swa") or key_length,
        swa_value_length=metadata.of_model("attention.value_length_swa") or value_length,
        window=metadata.of_model("attention.sliding_window") or None,
        windowed=_windowed(metadata),
        shared_kv_layers=metadata.of_model("attention.shared_kv_layers"),
    )


def _windowed(metadata: Metadata) -> tuple[bool, ...] | None:
    """Return which layers have a sliding window; None if the file does not tell."""
    pattern = metadata.each("attention.sliding_window_pattern")
    if len(pattern) > 1:
        return tuple(map(bool, (pattern + (0,) * metadata.layers)[: metadata.layers]))
    if pattern and pattern[0] > 0:  # every n-th layer sees all tokens
        return tuple((layer + 1) % pattern[0] != 0 for layer in range(metadata.layers))
    return None


def recurrence_of(metadata: Metadata) -> Recurrence | None:
    """Return the state of recurrent layers; None if the model has none of a kind that is known."""
    inner = metadata.of_model("ssm.inner_size")
    if not inner:
        return None
    return Recurrence(
        conv_kernel=metadata.of_model("ssm.conv_kernel"),
        inner_size=inner,
        state_size=metadata.of_model("ssm.state_size"),
        group_count=metadata.of_model("ssm.group_count"),
    )


def sized(tensors: Iterable[Tensor], data_bytes: int) -> list[tuple[Tensor, int]]:
    """Return each tensor with its bytes. A tensor of an unknown type reaches to the next one, or to the end."""
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    ends = (*(tensor.offset for tensor in ordered[1:]), data_bytes)
    return [
        (tensor, max(0, end - tensor.offset) if tensor.size_bytes is None else tensor.size_bytes)
        for tensor, end in zip(ordered, ends, strict=False)
    ]


def weights_of(tensors: Iterable[tuple[Tensor, int]], layers: int) -> Weights:
    """Return the bytes of the tensors by where llama.cpp places them."""
    blocks = [0] * layers
    inputs = output = other = 0
    for tensor, size in tensors:
        match = BLOCK.match(tensor.name)
        if match and int(match[1]) < layers:
            blocks[int(match[1])] += size
        elif tensor.name in INPUT_TENSORS:
            inputs += size
        elif tensor.name == OUTPUT_TENSOR:
            output += size
        else:
            other += size
    return Weights(tuple(blocks), inputs, output, other)


def quantization_of(metadata: Metadata, tensors: Iterable[tuple[Tensor, int]]) -> str | None:
    """Return the name of the quantization: as the file names it, else that of most bytes. None if there is none."""
    kind = metadata.values.get("general.file_type")
    if isinstance(kind, int) and kind in QUANTIZATIONS:
        return QUANTIZATIONS[kind]
    totals = Counter[str]()
    for tensor, size in tensors:
        if tensor.kind in TENSOR_TYPES:
            totals[TENSOR_TYPES[tensor.kind][0]] += size
    return max(totals, key=lambda name: (totals[name], name)) if totals else None
