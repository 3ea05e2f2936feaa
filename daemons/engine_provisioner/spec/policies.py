"""Contradictions in a pool of the pools file whose keys are each valid."""

from collections.abc import Iterator

from engine_provisioner.modes.mode import Finding
from engine_provisioner.sources.registry import source_of
from engine_provisioner.spec import workloads
from engine_provisioner.spec.pool_spec import Pool

RESIDENCY_KEYS = ("keep_alive", "pinned", "group")


def contradictions(pool: Pool, groups: frozenset[str]) -> Iterator[Finding]:
    """Yield each contradiction in `pool`; `groups` are the groups that the file declares."""
    yield from pool.provisioning.problems()
    yield from ((("workloads",), problem) for problem in workloads.wrong(pool))
    if pool.model is None and pool.provisioning.starts_engine:
        yield ("model",), f"is missing: mode {pool.provisioning.mode} requires it"
    if pool.quant and pool.model and not source_of(pool.model.ref).takes_quant:
        yield ("quant",), "is for hf: models only; this model names its file"
    if pool.tensor_split and len(pool.tensor_split) != len(pool.devices or ()):
        count = len(pool.devices or ())
        yield ("tensor_split",), f"has {len(pool.tensor_split)} numbers for {count} devices; give one for each device"
    if pool.group and pool.group not in groups:
        allowed = f"allowed: {', '.join(sorted(groups))}" if groups else "the file declares none"
        yield ("group",), f"{pool.group} is not declared ({allowed}); add [groups.{pool.group}] with a mode"
    if not pool.provisioning.starts_engine:
        for key in RESIDENCY_KEYS:
            if key in pool.model_fields_set:
                yield (key,), f"has no effect: mode {pool.provisioning.mode} does not load or unload the engine"
