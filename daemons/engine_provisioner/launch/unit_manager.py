"""Start, stop and inspect units over systemd's D-Bus interface, org.freedesktop.systemd1(5).

Each operation opens its own connection: operations are rare, and a restart of the bus in between does no harm.
"""

from dataclasses import dataclass
from typing import Any

import trio

from llama_orch.service.bus import Bus, BusError, system_bus

SYSTEMD = "org.freedesktop.systemd1"
ROOT = "/org/freedesktop/systemd1"
MANAGER, UNIT, SERVICE = f"{SYSTEMD}.Manager", f"{SYSTEMD}.Unit", f"{SYSTEMD}.Service"
PROPERTIES = "org.freedesktop.DBus.Properties"
SETTLE_S = 80.0
"""Longer than TimeoutStartSec and TimeoutStopSec of the engines' units."""
POLL_S = 0.02


@dataclass(frozen=True)
class UnitState:
    """The state of a service unit.

    `exit_code` is a CLD_ number of waitid(2), `invocation` is in hex, `control_group` is empty if the unit has none.
    """

    active: str
    job_pending: bool
    main_pid: int
    exit_code: int
    exit_status: int
    result: str
    invocation: str
    control_group: str = ""

    @property
    def settled(self) -> bool:
        """Whether no job is pending and no transition in progress."""
        return not self.job_pending and self.active in ("active", "inactive", "failed")


async def start(unit: str) -> UnitState:
    """Start `unit`; return its state once the job has succeeded or failed. Raises BusError."""
    return await _job("StartUnit", unit)


async def begin(unit: str) -> None:
    """Start `unit` without waiting for it; it may take hours. Raises BusError."""
    async with system_bus() as bus:
        await bus.call(SYSTEMD, ROOT, MANAGER, "StartUnit", "ss", (unit, "replace"))


async def state(unit: str) -> UnitState:
    """Return the state of `unit` now. Raises BusError."""
    async with system_bus() as bus:
        return await _state(bus, unit)


async def stop(unit: str) -> UnitState:
    """Stop `unit`; return its state once it has stopped. Raises BusError."""
    return await _job("StopUnit", unit)


async def settled(unit: str) -> UnitState:
    """Return the state of `unit` once it has settled; it need not have run before. Raises BusError.

    The result of the job is not enough: it is `done` also for a unit that was skipped by a condition.
    """
    async with system_bus() as bus:
        with trio.move_on_after(SETTLE_S):
            while not (found := await _state(bus, unit)).settled:  # noqa: ASYNC110 -- state of another process
                await trio.sleep(POLL_S)
            return found
    raise BusError(f"{unit} did not settle within {SETTLE_S:g} s")


async def running(pattern: str) -> list[str]:
    """Return the names of running units that match `pattern`. Raises BusError."""
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
        control_group=str(service.get("ControlGroup", "")),
    )


async def _properties(bus: Bus, path: str, interface: str) -> dict[str, Any]:
    (found,) = await bus.call(SYSTEMD, path, PROPERTIES, "GetAll", "s", (interface,))
    return {name: value for name, (_signature, value) in found.items()}
