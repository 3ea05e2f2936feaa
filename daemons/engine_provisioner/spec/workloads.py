"""The workloads of a pool: declared in the pools file, or what its flags make of the engine. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from engine_provisioner.spec.pool_spec import Pool
from llama_orch.contracts.engines import Workload
from llama_orch.engines.workloads import ALL, Mode, mode_of

OPTIONS: Mapping[Workload, tuple[str, ...]] = {
    "embedding": ("--embeddings", "--embedding"),
    "rerank": ("--reranking", "--rerank"),
}
"""The spellings of the option that an engine needs for a workload."""
ENV = {"LLAMA_ARG_EMBEDDINGS": "--embeddings", "LLAMA_ARG_RERANKING": "--reranking"}
ENV_POOLING = "LLAMA_ARG_POOLING"
ON = ("1", "true", "on", "enabled")


def mode(pool: Pool) -> Mode:
    """The mode of the llama-server that `pool` runs, as its variables, flags and declared workloads make it."""
    options = [option for name, option in ENV.items() if pool.env.get(name, "").lower() in ON]
    pooling = ["--pooling", pool.env[ENV_POOLING]] if ENV_POOLING in pool.env else []
    declared = [OPTIONS[workload][0] for workload in pool.workloads or () if workload in OPTIONS]
    return mode_of([*options, *pooling, *declared, *pool.flags])


def expected(pool: Pool) -> list[Workload] | None:
    """What `pool` will do once its engine runs; None where only the engine can tell."""
    if pool.workloads:
        return list(pool.workloads)
    if pool.engine == "llamacpp" and pool.model is not None and pool.provisioning.mode != "external":
        return [mode(pool).usual]
    return None


def served(pool: Pool, told: Sequence[Workload] | None) -> list[Workload] | None:
    """What to announce of an engine that was asked and `told` its workloads. An engine that was not started for a
    declared workload is not announced with it; one that can do more than it tells, completions, is."""
    if not pool.workloads:
        return list(told) if told else expected(pool)
    if told is None:
        return list(pool.workloads)
    return [workload for workload in pool.workloads if workload in told or workload == "completion"]


def wrong(pool: Pool) -> Iterator[str]:
    """Why the declared workloads cannot be had with the pool's flags; nothing for engines that somebody else runs."""
    if not pool.workloads or pool.engine != "llamacpp" or pool.provisioning.mode == "external":
        return
    if {"embedding", "rerank"} <= set(pool.workloads):
        yield "one llama-server does either embedding or rerank; use two pools"
        return
    found = mode(pool)
    for workload in (workload for workload in ALL if workload in pool.workloads and workload not in found.possible):
        if workload == "completion":
            yield (
                "completion contradicts --embeddings or --reranking: a chat would end the engine; remove one of them, "
                'or name a pooling that allows both, as in flags = ["--pooling", "mean"]'
            )
        else:
            yield f"{workload} contradicts the flags, which make it an engine for {found.usual}"
    if found.usual not in pool.workloads:
        yield f"does not name {found.usual}, which the flags start the engine for"
