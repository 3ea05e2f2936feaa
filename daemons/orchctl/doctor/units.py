"""Units: whether the daemons run, and how near units are to their limits. Pure functions."""

from collections.abc import Iterator

from llama_orch.service.exit import ExitStatus
from orchctl.check.findings import Finding, ok, problem, warning
from orchctl.doctor.site import DAEMONS, SLICE, TARGET, Site, Unit
from orchctl.errors import CommandError
from orchctl.provisioner import NAME
from orchctl.tables import size

NEAR = 0.9
"""The part of a limit from which on a unit is reported."""
RESTARTS = 5
LIMITS = (("MemoryCurrent", "MemoryMax"), ("MemoryCurrent", "MemoryHigh"), ("TasksCurrent", "TasksMax"))
NO_PERMISSION = "Run: sudo orchctl doctor"


def unit_findings(site: Site) -> Iterator[Finding]:
    """Yield nothing on a machine without llama-orch's units, such as that of a client."""
    daemons = [unit for name in DAEMONS if (unit := site.unit(name)).loaded]
    wanted = site.unit(TARGET).active or any(unit.active for unit in daemons)
    if daemons and not wanted and not any(unit["ActiveState"] == "failed" for unit in daemons):
        yield warning("units", "no daemon of llama-orch runs on this machine", f"systemctl start {TARGET}")
        return
    for unit in daemons:
        yield from _daemon_findings(unit, wanted=wanted)
    if site.installed(NAME) and site.unit(f"{NAME}.service").active:
        yield from provisioner_findings(site.pools)
    for name, unit in site.units.items():
        if unit.loaded and name not in DAEMONS and name != TARGET:
            yield from _result_findings(unit)
        yield from limit_findings(unit)


def _daemon_findings(unit: Unit, *, wanted: bool) -> Iterator[Finding]:
    name, journal = unit.name.removesuffix(".service"), f"journalctl -x -u {unit.name} -n 50"
    state = unit["ActiveState"]
    if state == "failed":
        mend = f"See {journal}. After the repair: systemctl reset-failed {unit.name} && systemctl start {unit.name}"
        yield problem("units", f"{unit.name} has failed ({unit['Result'] or 'no reason known'})", mend)
    elif state == "inactive" and (wanted or unit["UnitFileState"] == "enabled"):
        yield problem("units", f"{unit.name} does not run", f"systemctl start {unit.name}")
    elif unit["SubState"] == "auto-restart" or (unit.number("NRestarts") or 0) >= RESTARTS:
        yield warning("units", f"{unit.name} was restarted {unit['NRestarts']} times", f"See {journal}.")
    elif unit.active:
        yield ok("units", f"{name} runs")


def provisioner_findings(pools: object) -> Iterator[Finding]:
    """Yield what is wrong with the answer of the local engine-provisioner, whose unit is active."""
    if not isinstance(pools, CommandError):
        return
    if pools.status is ExitStatus.NO_PERMISSION:
        yield warning(NAME, f"not checked: {pools.message}", NO_PERMISSION)
    elif pools.status in (ExitStatus.DATA, ExitStatus.CONFIG):  # the pools files are invalid
        yield problem(NAME, pools.message, "engine-provisioner --check-config")
    else:
        text = f"its unit is active, but it does not answer: {pools.message}"
        yield problem(NAME, text, f"systemctl restart {NAME}-local.socket {NAME}.service")


def _result_findings(unit: Unit) -> Iterator[Finding]:
    if unit["Result"] == "oom-kill":
        mend = f"Use a smaller model, context or number of slots, or raise MemoryMax= of {unit.name} and {SLICE}."
        yield problem("units", f"{unit.name} was killed because memory ran out", mend)
    elif unit["ActiveState"] == "failed":
        yield problem("units", f"{unit.name} has failed ({unit['Result']})", f"journalctl -x -u {unit.name} -n 50")


def limit_findings(unit: Unit) -> Iterator[Finding]:
    for current, most in LIMITS:
        used, limit = unit.number(current), unit.number(most)
        if used is None or not limit or used < NEAR * limit:
            continue
        amounts = f"{used} of {limit}" if most == "TasksMax" else f"{size(used)} of {size(limit)}"
        mend = f"systemctl set-property {unit.name} {most}=… with a higher value, or infinity"
        yield warning("limits", f"{unit.name} uses {amounts} ({most}=)", mend)
