"""llama.cpp's llama-server, the one kind that engine-provisioner starts itself.

Facts measured with build 11669 unless noted otherwise.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, TypeAdapter

from llama_orch.contracts.engines import Workload
from llama_orch.engines import llamacpp_launch
from llama_orch.engines.engine_client import EngineClient, parse, positive, text
from llama_orch.engines.kind import (
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
    RERANK,
    Description,
    Kind,
    Load,
    Slots,
)
from llama_orch.engines.openai_models import describe_models
from llama_orch.engines.prometheus_text import total

if TYPE_CHECKING:
    from llama_orch.engines.wire.adapter import EngineAdapter

TOKENS_LIMIT = (1 << 31) - 1
"""llama.cpp counts tokens in 32 bits."""
NOT_STARTED_FOR = 501
EMPTY_INPUT = re.compile(rb"(input|content|query)\W+ must be provided|Pooling type")
"""How an enabled endpoint rejects an empty body."""

UNIFIED_CACHE = ("-kvu", "--kv-unified")
SPLIT_CACHE = ("-no-kvu", "--no-kv-unified")


class _SlotState(BaseModel):
    is_processing: bool


class _SlotTokens(BaseModel):
    """How much of its context a slot has filled; grows with each token while it processes a request."""

    is_processing: bool
    n_ctx: Annotated[int, Field(ge=1, le=TOKENS_LIMIT)]
    n_prompt_tokens: Annotated[int, Field(ge=0, le=TOKENS_LIMIT)] | None = None


SLOTS = TypeAdapter(list[_SlotState])
SLOT_TOKENS = TypeAdapter(list[_SlotTokens])


async def describe(client: EngineClient) -> Description:
    """Read /v1/models and /props. The `n_ctx` of /props is the context that each slot really got."""
    listed = describe_models(await client.get("/v1/models"))
    props = await client.get_object("/props")
    settings = props.get("default_generation_settings")
    alias = text(props.get("model_alias")) or text(props.get("model_path"))
    return Description(
        models=listed.models if listed else (alias,) if alias else (),
        ctx_max=positive(settings.get("n_ctx")) if isinstance(settings, dict) else None,
        workloads=await ask_workloads(client),
        slots=positive(props.get("total_slots")),
        version=text(props.get("build_info")),
    )


async def ask_workloads(client: EngineClient) -> tuple[Workload, ...] | None:
    """Return the workloads that the server was started for, or None if it does not answer as llama-server does.

    Empty bodies are posted: the server checks its mode before the body, so that no slot is taken and nothing is
    computed. Whether an embeddings server can chat as well cannot be asked: with pooling `none` a chat would crash it.
    """
    reranks = await _is_enabled(client, "/v1/rerank")
    embeds = await _is_enabled(client, "/v1/embeddings")
    if reranks is None or embeds is None:
        return None
    if reranks:
        return ("rerank",)
    return ("embedding",) if embeds else ("completion",)


async def _is_enabled(client: EngineClient, path: str) -> bool | None:
    answer = await client.post(path)
    if answer is None:
        return None
    status, body = answer
    if status == NOT_STARTED_FOR:
        return False
    return True if status == 400 and EMPTY_INPUT.search(body) else None


async def load(client: EngineClient, flags: Sequence[str]) -> Load:
    """Read /slots."""
    body = await client.get("/slots")
    return Load(slots_of(body), kv_usage(body, flags))


def slots_of(body: bytes) -> Slots | None:
    """Count the slots that /slots lists; None if it is no such list."""
    slots = parse(SLOTS, body)
    return Slots(len(slots), sum(not slot.is_processing for slot in slots)) if slots else None


def kv_usage(body: bytes, flags: Iterable[str]) -> float | None:
    """Return the used part of the KV cache, 0 to 1: tokens of running requests, prompt and answer so far.

    Tokens kept for later requests do not count, since they give way. Neither /slots nor /props tells whether the
    slots share one cache; the `flags` that the server was started with may. None if /slots does not tell the tokens.
    """
    slots = parse(SLOT_TOKENS, body)
    if not slots:
        return None
    running = [slot.n_prompt_tokens for slot in slots if slot.is_processing]
    known = [tokens for tokens in running if tokens is not None]
    if len(known) < len(running):
        return None
    sizes = [slot.n_ctx for slot in slots]
    return min(1.0, sum(known) / (max(sizes) if has_unified_cache(flags) else sum(sizes)))


def has_unified_cache(flags: Iterable[str]) -> bool:
    """Whether a server started with `flags` has one cache for all slots; the last flag counts."""
    relevant = [flag for flag in flags if flag in UNIFIED_CACHE + SPLIT_CACHE]
    return bool(relevant) and relevant[-1] in UNIFIED_CACHE


async def tokens(client: EngineClient) -> int | None:
    """Read the counter of generated tokens from /metrics, which a server started with --metrics has."""
    return total(b"llamacpp:tokens_predicted_total", await client.get("/metrics"))


def _adapter() -> "EngineAdapter":
    from llama_orch.engines.wire.llamacpp import LlamaCpp

    return LlamaCpp()


KIND = Kind(
    "llamacpp",
    relay_paths={"/completion": "completion", **OPENAI_COMPLETIONS, **OPENAI_EMBEDDINGS, **RERANK},
    describe=describe,
    adapter=_adapter,
    accepts_any_model_name=True,
    reports_workloads=True,
    load=load,
    tokens=tokens,
    workloads_by_flags=llamacpp_launch.workloads_by_flags,
    launch=llamacpp_launch.LAUNCH,
)
