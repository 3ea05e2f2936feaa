"""The protocol between supervisors and launchers; `child_launcher` and `systemd_launcher` implement it."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import trio

from engine_provisioner.engine import EngineCommand, Image, ImageOrder
from llama_orch.files.reachability import UnixUser

LivenessCheck = Callable[[EngineCommand], Awaitable[bool]]
"""Whether an engine that was started by this command answers now."""


Report = Callable[[str], Awaitable[None]]
"""Shows the progress of a step to operators."""


class RunningEngine(Protocol):
    """An engine that was started or adopted."""

    @property
    def pid(self) -> int:
        """The process that listens on the port."""

    @property
    def unit(self) -> str | None:
        """The systemd unit it runs as, if any."""

    @property
    def adopted(self) -> bool:
        """Whether it was already running when the launcher looked for it."""

    @property
    def cgroup(self) -> Path | None:
        """The directory of its unit's control group, None if it has none of its own."""

    async def wait(self) -> None:
        """Return when the process has ended."""

    async def exit_message(self) -> str:
        """Describe how it ended, with its last lines of output. Call it after the process has ended."""

    async def stop(self) -> None:
        """Stop it, by force if need be. Bounded in time; does nothing if it has ended."""


class Launcher(Protocol):
    """Starts engines, one per pool."""

    def engine_user(self) -> UnixUser | None:
        """Return the user that engines run as, None if it is this daemon's own. Blocks."""

    async def provide_image(self, pool_id: str, order: ImageOrder, report: Report) -> Image:
        """Return the image, which is pulled unless it is here. Raises ProvisioningFailure."""

    def run(
        self, pool_id: str, command: EngineCommand, is_alive: LivenessCheck
    ) -> AbstractAsyncContextManager[RunningEngine]:
        """Start or adopt the pool's engine. Raises ProvisioningFailure.

        When the block ends, a child process is stopped, and a unit keeps running.
        """

    async def known_commands(self) -> dict[str, EngineCommand]:
        """Return by pool the commands that an earlier run of the daemon started; they may have ended."""

    async def known_pools(self) -> set[str]:
        """Return the pools of earlier runs that still have a unit or a launch file. Raises ProvisioningFailure."""

    async def held_port(self, pool_id: str) -> int | None:
        """Return the port on which the pool's own engine is listening now."""

    async def remove(self, pool_id: str) -> None:
        """Stop the engine of a pool that is no longer configured. Raises ProvisioningFailure."""


async def wait_for_exit(pid: int) -> None:
    """Return when the process `pid` has ended, at once if there is none. It need not be a child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
