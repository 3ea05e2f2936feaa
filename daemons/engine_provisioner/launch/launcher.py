"""What a supervisor needs of whatever runs engines; `child_launcher` and `systemd_launcher` do it.

Owns the protocol and what both have in common: waiting for a process that need not be a child.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from engine_provisioner.engine import Command
from engine_provisioner.spec.reachability import Reader

Answers = Callable[[Command], Awaitable[bool]]
"""Whether an engine started by this command answers its health check now."""


class RunningEngine(Protocol):
    """An engine that has been started or adopted."""

    @property
    def pid(self) -> int:
        """The process that answers on the port."""

    @property
    def unit(self) -> str | None:
        """The systemd unit it runs as, if any."""

    @property
    def adopted(self) -> bool:
        """Whether it ran before this daemon did."""

    async def ended(self) -> None:
        """Return when the process has ended."""

    async def last_words(self) -> str:
        """How it ended, with its own last lines. To be asked after it has ended."""

    async def stop(self) -> None:
        """End it for good, by force if need be. Bounded, and safe to call when it has ended."""


class Launcher(Protocol):
    """Starts engines, one a pool."""

    def engine_user(self) -> Reader | None:
        """The user that engines run as, where it is not this daemon's own. Blocks."""

    def run(self, pool_id: str, command: Command, answers: Answers) -> AbstractAsyncContextManager[RunningEngine]:
        """The pool's engine for as long as the block lasts. What becomes of it afterwards is the launcher's matter:
        children end, units go on. Raises ProvisioningFailure when it cannot be started."""

    async def remembered(self) -> dict[str, Command]:
        """The commands of engines that an earlier run of the daemon started, by pool; they may run no more."""

    async def leftovers(self) -> set[str]:
        """The pools of which something of an earlier run is still there. Raises ProvisioningFailure."""

    async def held_port(self, pool_id: str) -> int | None:
        """The port that the pool's own engine holds now, so that it is in use and yet the pool's."""

    async def retire(self, pool_id: str) -> None:
        """Stop and forget the engine of a pool that is no longer wanted. Raises ProvisioningFailure."""


async def process_end(pid: int) -> None:
    """Return when the process `pid`, child or not, has ended; at once if there is none."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
