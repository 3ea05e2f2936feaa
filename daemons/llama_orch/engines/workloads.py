"""The workloads of engines by their handoff files. Pure."""

from collections.abc import Iterable, Sequence
from typing import get_args

from llama_orch.contracts.engines import Workload
from llama_orch.contracts.handoff import Handoff
from llama_orch.engines import KINDS

WORKLOADS: tuple[Workload, ...] = get_args(Workload)


def announced(handoff: Handoff) -> Sequence[Workload] | None:
    """Return the workloads that a handoff file names, or that its flags imply.

    None: the engine must be asked, and without an answer it counts as doing all that its kind can.
    """
    return handoff.workloads or KINDS[handoff.engine].workloads_by_flags(handoff.flags)


def union(workloads: Iterable[Sequence[Workload] | None]) -> list[Workload] | None:
    """Return what several engines do together; None if there are none or one of them may do anything."""
    known = list(workloads)
    if not known or any(some is None for some in known):
        return None
    return [workload for workload in WORKLOADS if any(workload in (some or ()) for some in known)]
