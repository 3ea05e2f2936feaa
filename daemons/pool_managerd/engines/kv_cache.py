"""How full an engine's KV cache is with requests in work, from what the engine tells.

From 0 to 1; None where it is not told. What is only kept for later requests does not count: it gives way. Pure; an
answer of any shape is borne.
"""

import math
import re
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter

from llama_orch.engines.describing import parsed

TOKENS_LIMIT = (1 << 31) - 1
"""llama.cpp counts tokens in 32 bits."""

UNIFIED = ("-kvu", "--kv-unified")
SPLIT = ("-no-kvu", "--no-kv-unified")

VLLM_GAUGES = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc")
"""The name of today, then that of older releases; both tell a share of 1, whatever they are called."""


class _Slot(BaseModel):
    """How much of its context a slot has filled; while it works, that grows with each token (measured: build 11669)."""

    is_processing: bool
    n_ctx: Annotated[int, Field(ge=1, le=TOKENS_LIMIT)]
    n_prompt_tokens: Annotated[int, Field(ge=0, le=TOKENS_LIMIT)] | None = None


SLOTS = TypeAdapter(list[_Slot])


def llama_server_usage(body: bytes, flags: Iterable[str]) -> float | None:
    """From llama-server's /slots: the tokens of its requests, prompt and answer so far, of those there is room for.

    Neither /slots nor /props tells whether the slots share one cache; `flags`, with which it was started, may.
    """
    slots = parsed(SLOTS, body)
    if not slots:
        return None
    held = [slot.n_prompt_tokens for slot in slots if slot.is_processing]
    told = [tokens for tokens in held if tokens is not None]
    if len(told) < len(held):
        return None
    sizes = [slot.n_ctx for slot in slots]
    return min(1.0, sum(told) / (max(sizes) if is_unified(flags) else sum(sizes)))


def is_unified(flags: Iterable[str]) -> bool:
    """Whether a llama-server started with `flags` has one cache for all slots; the last word counts."""
    words = [flag for flag in flags if flag in UNIFIED + SPLIT]
    return bool(words) and words[-1] in UNIFIED


def vllm_usage(metrics: bytes) -> float | None:
    """From vLLM's /metrics. Several cores in one server have caches of one size: what is told is their mean."""
    told = (_values(name, metrics) for name in VLLM_GAUGES)
    values: Sequence[float] = next(filter(None, told), [])
    return fmean(min(1.0, max(0.0, value)) for value in values) if values else None


def _values(name: bytes, metrics: bytes) -> list[float]:
    found = re.findall(rb"^%s(?:\{.*\})?[ \t]+(\S+)" % name, metrics, re.MULTILINE)
    return [value for text in found if (value := _number(text)) is not None]


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
