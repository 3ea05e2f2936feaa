"""What a mode would do to obtain an engine, found out without doing it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from engine_provisioner.engine import Image
from engine_provisioner.failures import ProvisioningFailure

SizeOf = Callable[[str], Awaitable[int | None]]
"""Ask a server for the size of a file in bytes; None if it does not tell."""


class StepState(Enum):
    """What a step of a plan comes to."""

    PRESENT = "present"
    DOWNLOAD = "would download"
    INSTALL = "would install"
    BUILD = "would build"
    PULL = "would pull"
    BLOCKED = "cannot"


@dataclass(frozen=True)
class Step:
    """A step, such as the engine or the model; `subject` is what it is about. `size_bytes` is that of a download.

    `failure` is why the step would fail.
    """

    name: str
    subject: str
    state: StepState
    detail: str = ""
    size_bytes: int | None = None
    failure: ProvisioningFailure | None = None


@dataclass(frozen=True)
class PlanSite:
    """What a plan may look at: the cache directory, and the indices of the pool's GPUs. Nothing is written."""

    cache_dir: Path
    gpus: tuple[int, ...]
    size_of: SizeOf
    entry: tuple[str, ...] = ()
    """The words before the engine's arguments in a container."""


@dataclass(frozen=True)
class EnginePlan:
    """The steps to the engine. `argv` begins its command line, if that is known already; `record` is as in Program."""

    steps: tuple[Step, ...]
    argv: tuple[str, ...] | None = None
    record: Path | None = None
    image: Image | None = None
    gates: tuple[str, ...] = ()
    """The keys of the pools file that permit this."""


def blocked(name: str, subject: str, failure: ProvisioningFailure) -> Step:
    """Return the step that fails with `failure`."""
    return Step(name, subject, StepState.BLOCKED, failure=failure)
