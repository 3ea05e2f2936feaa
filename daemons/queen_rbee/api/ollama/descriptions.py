"""What /api/tags, /api/ps and /api/show say of models. Pure functions; their answers' models are imported late."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from pydantic import JsonValue

from llama_orch.contracts.pools import PoolStatus
from llama_orch.engines.wire.model_names import model_key, public_name
from queen_rbee.pools.model_lookup import ModelListing

if TYPE_CHECKING:
    from queen_rbee.api.ollama.schemas import ListedModel, LoadedModel, ModelDetails, ShownModel

FOR_EVER = timedelta(days=36_500)
CAPABILITIES: Mapping[str, Sequence[str]] = {"completion": ("completion", "tools"), "embedding": ("embedding",)}
"""Ollama's capabilities by workload. Every chat may have tools: engines refuse them where a template has none."""


def listed(found: ModelListing, pools: Sequence[PoolStatus]) -> "ListedModel":
    """Describe a name; `pools` are those that have the model."""
    from queen_rbee.api.ollama.schemas import ListedModel

    return ListedModel(
        name=found.name,
        model=found.name,
        modified_at=_created(found),
        size=max((_size(pool) for pool in pools), default=0),
        digest=_digest(found.name, pools),
        details=_details(pools),
    )


def loaded(pools: Iterable[PoolStatus], now: datetime) -> "list[LoadedModel]":
    """Describe the loaded models: each once, by the name under which its pools serve it, with their memory added."""
    by_name: dict[str, list[PoolStatus]] = {}
    for pool in pools:
        if pool.ready:
            name = public_name(pool.models_available[0]) if pool.models_available else pool.pool_id
            by_name.setdefault(name, []).append(pool)
    return [_loaded(name, having, now) for name, having in by_name.items()]


def shown(found: ModelListing, pools: Sequence[PoolStatus]) -> "ShownModel":
    """Describe a model. `model_info` has the context where clients look for it: below its architecture, for which the
    kind of engine stands."""
    from queen_rbee.api.ollama.schemas import ShownModel

    kind = pools[0].engine if pools else "unknown"
    info: dict[str, JsonValue] = {"general.architecture": kind, "general.name": found.name}
    if found.ctx_max:
        info[f"{kind}.context_length"] = found.ctx_max
    return ShownModel(
        modelfile=f"# served by {', '.join(found.pools) or 'no pool'}\nFROM {found.name}\n",
        parameters=f"num_ctx {found.ctx_max}" if found.ctx_max else "",
        details=_details(pools),
        model_info=info,
        capabilities=[each for workload in found.workloads for each in CAPABILITIES.get(workload, ())],
        modified_at=_created(found),
    )


def _loaded(name: str, pools: Sequence[PoolStatus], now: datetime) -> "LoadedModel":
    from queen_rbee.api.ollama.schemas import LoadedModel

    needs = [pool.residency.need_bytes for pool in pools if pool.residency]
    return LoadedModel(
        name=name,
        model=name,
        size=sum(size for need in needs for size in need.values()),
        digest=_digest(name, pools),
        details=_details(pools),
        expires_at=max(now + _lifetime(pool) for pool in pools),
        size_vram=sum(size for need in needs for device, size in need.items() if device != "cpu"),
        context_length=max((pool.ctx_max or 0 for pool in pools), default=0),
    )


def _lifetime(pool: PoolStatus) -> timedelta:
    """Return how long a loaded pool stays loaded if it gets no more tasks."""
    if pool.unload_in_s is not None:
        return timedelta(seconds=pool.unload_in_s)
    kept = pool.residency.keep_alive_s if pool.residency and pool.idle_s is None else None
    return FOR_EVER if kept is None else timedelta(seconds=kept)


def _created(found: ModelListing) -> datetime:
    return datetime.fromtimestamp(found.created or 0, UTC)


def _size(pool: PoolStatus) -> int:
    model = pool.residency.model if pool.residency else None
    return (model and model.size_bytes) or 0


def _digest(name: str, pools: Sequence[PoolStatus]) -> str:
    """Return 64 hexadecimal digits: clients cut them to twelve."""
    verified = [(model, digest) for pool in pools for model, digest in pool.model_digests.items()]
    named = [digest for model, digest in verified if model_key(model) == model_key(name)]
    digest = next(iter(named), None) or next((digest for _model, digest in verified), None)
    return digest.removeprefix("sha256:") if digest else sha256(name.encode()).hexdigest()


def _details(pools: Sequence[PoolStatus]) -> "ModelDetails":
    from queen_rbee.api.ollama.schemas import ModelDetails

    return ModelDetails(format="gguf" if any(pool.engine == "llamacpp" for pool in pools) else "")
