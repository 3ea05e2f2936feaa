"""systemd's own D-Bus interface, org.freedesktop.systemd1(5): starting, stopping and looking at units.

Every act has a connection of its own: starts are rare, and a bus that was restarted meanwhile does not matter.
"""

from dataclasses import dataclass
from typing import Any

import trio

from engine_provisioner.launch.bus import Bus, BusError, system_bus

SYSTEMD = "org.freedesktop.systemd1"
ROOT = "/org/freedesktop/systemd1"
MANAGER, UNIT, SERVICE = f"{SYSTEMD}.Manager", f"{SYSTEMD}.Unit", f"{SYSTEMD}.Service"
PROPERTIES = "org.freedesktop.DBus.Properties"
SETTLE_S = 30.0
"""Longer than the TimeoutStopSec of the engines' unit."""
LOOK_S = 0.02


@dataclass(frozen=True)
class UnitState:
    """A service unit as its manager sees it. `exit_code` is a CLD_ number of waitid(2), `invocation` is hex."""

    active: str
    job_pending: bool
    main_pid: int
    exit_code: int
    exit_status: int
    result: str
    invocation: str

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        return not self.job_pending and self.active in ("active", "inactive", "failed")


async def start(unit: str) -> UnitState:
    """Start `unit`: its state when that is done, be it well or badly. Raises BusError."""
    return await _job("StartUnit", unit)


async def stop(unit: str) -> UnitState:
    """Stop `unit`: its state when that is done. Raises BusError."""
    return await _job("StopUnit", unit)


async def settled(unit: str) -> UnitState:
    """The state of `unit`, also of one that never ran, once nothing is under way. Raises BusError.

    What a job reports of itself is not enough: it is `done` too for a unit that a condition has skipped.
    """
    async with system_bus() as bus:
        with trio.move_on_after(SETTLE_S):
            while not (found := await _state(bus, unit)).settled:  # noqa: ASYNC110 -- another process's state
                await trio.sleep(LOOK_S)
            return found
    raise BusError(f"{unit} has not settled within {SETTLE_S:g} s")


async def running(pattern: str) -> list[str]:
    """The names of the units that match `pattern` and run. Raises BusError."""
    async with system_bus() as bus:
        states = ["active", "activating", "reloading"]
        (rows,) = await bus.call(SYSTEMD, ROOT, MANAGER, "ListUnitsByPatterns", "asas", (states, [pattern]))
    return [str(row[0]) for row in rows]


async def _job(method: str, unit: str) -> UnitState:
    async with system_bus() as bus:
        await bus.call(SYSTEMD, ROOT, MANAGER, method, "ss", (unit, "replace"))
    return await settled(unit)


async def _state(bus: Bus, unit: str) -> UnitState:
    (path,) = await bus.call(SYSTEMD, ROOT, MANAGER, "LoadUnit", "s", (unit,))
    general = await _properties(bus, path, UNIT)
    service = await _properties(bus, path, SERVICE)
    return UnitState(
        active=str(general["ActiveState"]),
        job_pending=general["Job"][0] != 0,
        main_pid=int(service["MainPID"]),
        exit_code=int(service["ExecMainCode"]),
        exit_status=int(service["ExecMainStatus"]),
        result=str(service["Result"]),
        invocation=bytes(general["InvocationID"]).hex(),
    )


async def _properties(bus: Bus, path: str, interface: str) -> dict[str, Any]:
    (found,) = await bus.call(SYSTEMD, path, PROPERTIES, "GetAll", "s", (interface,))
    return {name: value for name, (_signature, value) in found.items()}
