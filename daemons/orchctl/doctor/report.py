"""The findings of `orchctl doctor`: those of `orchctl check`, then those about this machine."""

import trio

from orchctl.check.check import all_findings
from orchctl.check.findings import Finding
from orchctl.check.observations import Observations, observe
from orchctl.client import QueenClient
from orchctl.doctor.checks import machine_findings
from orchctl.nurseries import unwrap_groups


async def diagnose(queen: QueenClient) -> list[Finding]:
    """Observe queen and machine side by side, and judge them."""
    observed: list[Observations] = []
    machine: list[Finding] = []

    async def observe_queen() -> None:
        observed.append(await observe(queen))

    async def observe_machine() -> None:
        machine.extend(await machine_findings())

    with unwrap_groups():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(observe_queen)
            nursery.start_soon(observe_machine)
    return [*all_findings(observed[0]), *machine]
