"""The memory that a model needs once it is loaded, estimated from its header. Pure.

The parts are those that llama-server logs. Compared with build 11669 on the CPU (five shapes of LLaMA models, contexts
of 300 to 16,384 tokens, 1 to 4 slots, the cache types f16, q8_0 and q4_0): weights and KV cache equal its figures, and
the compute buffer differs by at most 1.3 MiB. The rest is approximated:

- mixture-of-experts models compute with all experts of a token at once, and all experts lie with their layer;
- sliding windows of a file that does not list their layers have the pattern of its architecture, if that is known, and
  otherwise take the full context;
- recurrent layers have the state of Mamba 2; other recurrent architectures are not known and count as attention;
- latent attention (MLA) counts keys and values, although newer builds store only keys;
- a GPU's context, kernels and scratch memory are a constant.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine_provisioner.gguf.header import GgufHeader, Weights
from engine_provisioner.memory.plan import CACHE_TYPES, LoadPlan

CELLS_STEP = 256
"""llama.cpp rounds the cells of a KV cache up to a multiple of this."""
FLOAT = 4
MASK_FLASH, MASK_PLAIN = 2, 4
"""Bytes of an element of the attention mask, with flash attention and without."""
FFN_TENSORS, EMBEDDING_TENSORS, PLAIN_TENSORS = 3, 5, 7
"""How many results of the width of the feed-forward network and of the embedding are alive at the same time; without
flash attention, those of the attention are alive instead."""
DEVICE_CONTEXT = 512 << 20
"""Bytes that CUDA, its kernels and cuBLAS take on each GPU before anything is loaded."""
PROCESS = 16 << 20
"""Bytes of the process itself on the host."""
WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2}
"""Architectures whose older files do not list the layers with a sliding window: every n-th layer has none."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by part and place. `device_…` is the sum over all GPUs; `measured` if corrected by a measurement."""

    device_weights: int = 0
    host_weights: int = 0
    device_kv: int = 0
    host_kv: int = 0
    device_compute: int = 0
    host_compute: int = 0
    device_context: int = 0
    host_process: int = 0
    measured: bool = False

    @property
    def device_bytes(self) -> int:
        return self.device_weights + self.device_kv + self.device_compute + self.device_context

    @property
    def host_bytes(self) -> int:
        return self.host_weights + self.host_kv + self.host_compute + self.host_process


@dataclass(frozen=True)
class Measurement:
    """What an engine took after its load; None where it could not be measured. `key` is its `load_key`."""

    key: str
    device_bytes: int | None = None
    host_bytes: int | None = None


def load_key(model: str, size_bytes: int, ctx: int, slots: int, flags: Sequence[str]) -> str:
    """Return what two loads have in common that need equal memory. `model` is the digest, or the path without one."""
    document = json.dumps([model, size_bytes, ctx, slots, list(flags)])
    return hashlib.sha256(document.encode()).hexdigest()


def corrected(estimate: Estimate, measurement: Measurement | None, key: str) -> Estimate:
    """Return `estimate` with the sums that were measured at the last load of the same `key`, if there was one.

    What a sum has more or less than its parts is put into the compute buffer, or taken from the parts in proportion.
    """
    if measurement is None or measurement.key != key:
        return estimate
    found = estimate
    if measurement.device_bytes is not None:
        parts = (found.device_weights, found.device_kv, found.device_context)
        weights, kv, context, compute = _scaled(parts, max(0, measurement.device_bytes))
        found = replace(
            found, device_weights=weights, device_kv=kv, device_context=context, device_compute=compute, measured=True
        )
    if measurement.host_bytes is not None:
        parts = (found.host_weights, found.host_kv, found.host_process)
        weights, kv, process, compute = _scaled(parts, max(0, measurement.host_bytes))
        found = replace(
            found, host_weights=weights, host_kv=kv, host_process=process, host_compute=compute, measured=True
        )
    return found


def _scaled(parts: tuple[int, int, int], total: int) -> tuple[int, int, int, int]:
    """Return `parts`, made smaller if they exceed `total`, and the rest of `total`."""
    known = sum(parts)
    first, second, third = (part * total // known for part in parts) if known > total else parts
    return first, second, third, total - first - second - third


def estimate(header: GgufHeader, plan: LoadPlan, *, others: Sequence[Weights] = (), extra_bytes: int = 0) -> Estimate:
    """Return the memory of the model with `header`, loaded by `plan`.

    `others` are the weights of further files of a split model. `extra_bytes` are loaded beside it, such as a projector
    for images; they lie on the device if there is one.
    """
    on_device = min(plan.gpu_layers, header.block_count) if plan.devices else 0
    first = header.block_count - on_device
    device_weights, host_weights = _weights(header, others, first, plan)
    layers = list(_kv_of_layers(header, plan))
    device_kv = 0 if plan.kv_on_host else sum(layers[first:])
    compute = _compute(header, plan)
    extra_on_device = extra_bytes if plan.devices else 0
    uses_device = plan.devices > 0 and plan.gpu_layers > 0
    return Estimate(
        device_weights=device_weights + extra_on_device,
        host_weights=host_weights + extra_bytes - extra_on_device,
        device_kv=device_kv,
        host_kv=sum(layers) - device_kv,
        device_compute=compute * plan.devices if uses_device else 0,
        host_compute=_input_buffers(header, plan) if uses_device and not first else compute,
        device_context=DEVICE_CONTEXT * plan.devices,
        host_process=PROCESS,
    )


def _weights(header: GgufHeader, others: Sequence[Weights], first: int, plan: LoadPlan) -> tuple[int, int]:
    """Return the bytes on the device and on the host: layers from `first` on, and the output if all layers are."""
    files = (header.weights, *others)
    device = sum(sum(weights.blocks[first:]) for weights in files)
    last = sum(weights.output + weights.other for weights in files)
    total = sum(weights.total for weights in files)
    if plan.devices == 0 or plan.gpu_layers <= header.block_count:
        return device, total - device
    copied = 0 if any(weights.output for weights in files) else header.weights.input
    return device + last + copied, total - device - last


def _cells(tokens: int) -> int:
    return -(-tokens // CELLS_STEP) * CELLS_STEP


def _cells_of_stream(header: GgufHeader, plan: LoadPlan) -> int:
    """Return the cells that a slot has, or all slots together if they share them."""
    ctx = plan.ctx or header.context_length
    return _cells(ctx * plan.slots if plan.unified else ctx)


def _kv_of_layers(header: GgufHeader, plan: LoadPlan) -> Iterator[int]:
    """Yield the bytes of the cache of each layer, for all slots together."""
    attention = header.attention
    streams = 1 if plan.unified else plan.slots
    cells = _cells_of_stream(header, plan) * streams
    reach = (attention.window or 0) * plan.slots // streams + plan.ubatch
    windowed_cells = min(cells, _cells(reach) * streams)
    for layer in range(header.block_count):
        if _is_recurrent(header, layer):
            yield _recurrent_state(header) * plan.slots
        elif layer >= header.block_count - attention.shared_kv_layers:
            yield 0
        else:
            heads = attention.kv_heads[layer] if layer < len(attention.kv_heads) else 0
            if attention.window and not plan.swa_full and _is_windowed(header, layer):
                keys, values, used = attention.swa_key_length, attention.swa_value_length, windowed_cells
            else:
                keys, values, used = attention.key_length, attention.value_length, cells
            yield used * (_row(heads * keys, plan.cache_type_k) + _row(heads * values, plan.cache_type_v))


def _row(elements: int, cache_type: str) -> int:
    block, size = CACHE_TYPES[cache_type]
    return -(-elements // block) * size


def _is_windowed(header: GgufHeader, layer: int) -> bool:
    listed = header.attention.windowed
    if listed is not None:
        return layer < len(listed) and listed[layer]
    pattern = WINDOW_PATTERNS.get(header.architecture)
    return pattern is not None and (layer + 1) % pattern != 0


def _is_recurrent(header: GgufHeader, layer: int) -> bool:
    if header.recurrence is None:
        return False
    if header.full_attention_interval:
        return (layer + 1) % header.full_attention_interval != 0
    heads = header.attention.kv_heads
    return layer >= len(heads) or heads[layer] == 0


def _recurrent_state(header: GgufHeader) -> int:
    """Return the bytes of the state of a recurrent layer and slot, in 32-bit floats."""
    state = header.recurrence
    assert state is not None
    convolution = max(0, state.conv_kernel - 1) * (state.inner_size + 2 * state.group_count * state.state_size)
    return FLOAT * (convolution + state.inner_size * state.state_size)


def _compute(header: GgufHeader, plan: LoadPlan) -> int:
    """Return the bytes of the buffer for intermediate results of a batch of `ubatch` tokens.

    Fitted to the measurements named above: at the widest point of the graph three results of the feed-forward network
    and five of the width of the embedding are alive, or without flash attention the product of queries and keys.
    """
    cells = _cells_of_stream(header, plan)
    width = max(header.feed_forward_length, header.expert_feed_forward_length * header.experts_used)
    results = FFN_TENSORS * width + EMBEDDING_TENSORS * header.embedding_length
    mask = MASK_FLASH
    if not plan.flash_attention:
        mask = MASK_PLAIN
        heads = max(header.attention.heads, default=0)
        results = max(results, heads * cells + PLAIN_TENSORS * header.embedding_length)
    logits = header.vocabulary_size * plan.slots * FLOAT
    return plan.ubatch * (FLOAT * results + mask * cells) + logits


def _input_buffers(header: GgufHeader, plan: LoadPlan) -> int:
    """Return the bytes on the host if all layers are on the device: embeddings of a batch, mask and logits."""
    cells = _cells_of_stream(header, plan)
    batch = plan.ubatch * (FLOAT * header.embedding_length + MASK_PLAIN * cells)
    return batch + header.vocabulary_size * plan.slots * FLOAT
