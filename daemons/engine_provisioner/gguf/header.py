"""What the header of a GGUF file says about a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attention:
    """The attention of a model. Lists have one entry for each layer.

    `kv_heads` of 0 is a layer without attention (recurrent). `key_length` and `value_length` are elements of a head;
    `swa_…` those of layers with a sliding window. `window` is in tokens, None without one. `windowed` has the layers
    that use it, None if the file does not list them. The last `shared_kv_layers` use the cache of earlier layers.
    """

    heads: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    key_length: int = 0
    value_length: int = 0
    swa_key_length: int = 0
    swa_value_length: int = 0
    window: int | None = None
    windowed: tuple[bool, ...] | None = None
    shared_kv_layers: int = 0


@dataclass(frozen=True)
class Recurrence:
    """The state of recurrent layers (Mamba and the like); all are counts of elements."""

    conv_kernel: int
    inner_size: int
    state_size: int
    group_count: int


@dataclass(frozen=True)
class Weights:
    """The bytes of tensors by where llama.cpp places them.

    `blocks` has an entry for each layer. `input` are the token embeddings, which stay in host memory, `output` is the
    output matrix. A model without one uses a copy of the token embeddings. `other` are norms and the rest.
    """

    blocks: tuple[int, ...] = ()
    input: int = 0
    output: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return sum(self.blocks) + self.input + self.output + self.other


@dataclass(frozen=True)
class GgufHeader:
    """The header of one GGUF file. Sizes are in bytes, lengths in tokens or elements; 0 is unknown.

    `truncated_by` are the bytes of tensors that lie beyond the end of the file. A model in `split_count` files has its
    keys in the first and tensors in all.
    """

    version: int
    architecture: str
    name: str | None
    quantization: str | None
    context_length: int
    block_count: int
    embedding_length: int
    feed_forward_length: int
    vocabulary_size: int
    expert_count: int
    experts_used: int
    expert_feed_forward_length: int
    attention: Attention
    recurrence: Recurrence | None
    full_attention_interval: int
    has_chat_template: bool
    tensor_count: int
    weights: Weights
    data_offset: int
    file_bytes: int
    truncated_by: int
    split_count: int
    split_no: int
