"""All checks of this machine, run side by side, each within LIMIT_S seconds."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import trio

from orchctl.check.findings import Finding, warning
from orchctl.doctor import clock, disks, driver, engines, kernel, models, plans, ports, site, units
from orchctl.doctor.site import LIMIT_S, Site, Unknown
from orchctl.nurseries import unwrap_groups


@dataclass(frozen=True)
class Check:
    """One check: `observe` gathers values, and `judge` is a pure function over them, unless they are Unknown."""

    subject: str
    observe: Callable[[Site], Awaitable[Any]]
    judge: Callable[[Any], Iterator[Finding]]


async def _site_itself(found: Site) -> Site:
    return found


CHECKS = (
    Check("units", _site_itself, units.unit_findings),
    Check("plan", plans.observe_plans, plans.plan_findings),
    Check("models", models.observe_models, models.model_findings),
    Check("engines", engines.observe_engines, engines.engine_findings),
    Check("driver", driver.observe_driver, driver.driver_findings),
    Check("kernel", kernel.observe_kernel, kernel.kernel_findings),
    Check("ports", ports.observe_ports, ports.port_findings),
    Check("disk", disks.observe_disks, disks.disk_findings),
    Check("clock", clock.observe_clock, clock.clock_sync_findings),
)
"""In the order of the output. A new check is an entry here."""


async def machine_findings(checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """Return the findings about this machine. Never raises for what the machine is like."""
    found = await site.find_site()
    results: dict[str, object] = {}

    async def observe(check: Check) -> None:
        results[check.subject] = Unknown(f"no result within {LIMIT_S:g} s")
        with trio.move_on_after(LIMIT_S):
            results[check.subject] = await check.observe(found)

    with unwrap_groups():
        async with trio.open_nursery() as nursery:
            for check in checks:
                nursery.start_soon(observe, check)
    return [finding for check in checks for finding in judged(check, results[check.subject])]


def judged(check: Check, result: object) -> Iterator[Finding]:
    if isinstance(result, Unknown):
        yield warning(check.subject, f"not checked: {result.reason}", result.mend)
    else:
        yield from check.judge(result)
