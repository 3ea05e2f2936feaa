"""The workloads of a pool: declared in the pools file, or implied by its flags. Pure."""

from collections.abc import Iterator, Sequence

from engine_provisioner.spec.pool_spec import Pool
from llama_orch.contracts.engines import Workload
from llama_orch.engines import KINDS
from llama_orch.engines.kind import EngineOptions


def engine_options(pool: Pool) -> EngineOptions:
    """Return the pool's keys that become options of its engine."""
    return EngineOptions(pool.flags, pool.env, pool.workloads or ())


def expected(pool: Pool) -> list[Workload] | None:
    """Return what `pool` will do once its engine runs; None if only the engine can tell."""
    if pool.workloads:
        return list(pool.workloads)
    launch = KINDS[pool.engine].launch
    if launch and pool.model is not None and pool.provisioning.mode != "external":
        workload = launch.workload(engine_options(pool))
        return [workload] if workload else None
    return None


def served(pool: Pool, reported: Sequence[Workload] | None) -> list[Workload] | None:
    """Return the workloads to announce for an engine that `reported` these.

    A declared workload that the engine was not started for is left out. Completion is announced if declared: an
    engine that chats besides embedding does not report it.
    """
    if not pool.workloads:
        return list(reported) if reported else expected(pool)
    if reported is None:
        return list(pool.workloads)
    return [workload for workload in pool.workloads if workload in reported or workload == "completion"]


def wrong(pool: Pool) -> Iterator[str]:
    """Yield why the declared workloads contradict the pool's flags; nothing in mode external."""
    launch = KINDS[pool.engine].launch
    if pool.workloads and launch and pool.provisioning.mode != "external":
        yield from launch.conflicts(engine_options(pool))
