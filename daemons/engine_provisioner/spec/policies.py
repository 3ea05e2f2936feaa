"""Contradictions in a pool of the pools file whose keys are each valid."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from engine_provisioner.modes.mode import Finding
from engine_provisioner.spec import workloads
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.addresses import is_loopback

RESIDENCY_KEYS = ("keep_alive", "pinned", "group")


def contradictions(pool: Pool, groups: frozenset[str]) -> Iterator[Finding]:
    """Yield each contradiction in `pool`; `groups` are the groups that the file declares."""
    yield from pool.provisioning.problems()
    yield from ((("workloads",), problem) for problem in workloads.wrong(pool))
    if pool.model is None and pool.provisioning.starts_engine:
        yield ("model",), f"is missing: mode {pool.provisioning.mode} requires it"
    if pool.model and is_cleartext(pool.model.ref):
        yield ("model",), "plain http is allowed from this machine only; use https://"
    if pool.quant and pool.model and not pool.model.ref.startswith("hf:"):
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


def is_cleartext(url: str) -> bool:
    """Whether `url` is plain http to another machine, which needs a checksum to be safe."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
