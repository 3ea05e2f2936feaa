"""The base class of provisioning modes: a table of the pools file, its rules, and how the engine is obtained."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, get_args

from pydantic import ConfigDict, StringConstraints

from engine_provisioner.engine import Image, ImageOrder, Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes.planning import EnginePlan, PlanSite, Step, StepState
from engine_provisioner.step_deadline import StepDeadline
from llama_orch.contracts.base import Inbound

OneLine = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]

Finding = tuple[tuple[str, ...], str]
"""A key, as a path below the pool's table, and the problem with its value."""

Report = Callable[[str], Awaitable[None]]
"""Shows the progress of a step to operators."""

Fetch = Callable[[str, Path, str | None], Awaitable[None]]
"""Download a URL to a file and verify its `sha256:` checksum, if one is given. Raises ProvisioningFailure."""


Provide = Callable[[ImageOrder], Awaitable[Image]]
"""Make an image available to the runtime that runs engines. Raises ProvisioningFailure."""


async def no_images(order: ImageOrder) -> Image:
    """Refuse, where no engine is to be started."""
    raise ProvisioningFailure(f"no runtime for the image {order.image}", retry=Retry.NEVER)


@dataclass(frozen=True)
class Workspace:
    """What a mode may use to obtain the engine of one pool.

    `cache_dir` is absolute and shared by all pools; `gpus` are the indices of the pool's GPUs, none for the CPU;
    `entry` are the words before the engine's arguments in a container.
    """

    cache_dir: Path
    deadline: StepDeadline
    report: Report
    fetch: Fetch
    gpus: tuple[int, ...] = ()
    entry: tuple[str, ...] = ()
    provide_image: Provide = no_images


class ProvisioningMode(Inbound):
    """The table `[pools.provisioning]` in one mode.

    A subclass narrows `mode` to a Literal and is registered in `registry.MODES`.
    """

    model_config = ConfigDict(strict=True)

    starts_engine: ClassVar[bool] = True
    """Whether this daemon starts the engine and therefore needs its program and a model."""

    mode: str

    @classmethod
    def mode_name(cls) -> str:
        """The value of the key `mode`."""
        return str(get_args(cls.model_fields["mode"].annotation)[0])

    @property
    def engine_key(self) -> str:
        """Identify the engine: pools with the same key wait for each other instead of fetching it twice."""
        return self.mode

    def problems(self) -> Iterator[Finding]:
        """Yield contradictions between keys that are each valid."""
        yield from ()

    async def obtain(self, workspace: Workspace) -> Program:
        """Return the engine's program on this machine. Raises ProvisioningFailure."""
        message = f"provisioning mode {self.mode} is not available in this release"
        raise ProvisioningFailure(message, "Use mode binary, package or external.", Retry.NEVER)

    async def plan(self, site: PlanSite) -> EnginePlan:
        """Return what `obtain` would do, without doing it."""
        step = Step("engine", f"mode {self.mode}", StepState.PRESENT if not self.starts_engine else StepState.INSTALL)
        return EnginePlan((step,))
