"""The clock of this machine: whether it is synchronized."""

from collections.abc import Iterator
from dataclasses import dataclass

from llama_orch.packages import Tool, install_command
from orchctl.check.findings import Finding, ok, warning
from orchctl.child import output_of
from orchctl.doctor.site import Site, Unknown

CHRONY = Tool("chronyd", apt="chrony", dnf="chrony")


@dataclass(frozen=True)
class Clock:
    """What timedatectl says. `can_synchronize`: a time service is installed."""

    synchronized: bool
    can_synchronize: bool = True


async def observe_clock(_site: Site) -> Clock | Unknown:
    shown = await output_of("timedatectl", "show", "--property=NTPSynchronized", "--property=CanNTP")
    if not shown.ok:
        return Unknown(shown.problem or shown.err.strip() or "timedatectl failed")
    lines = shown.out.splitlines()
    return Clock("NTPSynchronized=yes" in lines, "CanNTP=no" not in lines)


def clock_sync_findings(clock: Clock) -> Iterator[Finding]:
    if clock.synchronized:
        yield ok("clock", "this machine's clock is synchronized")
        return
    mend = "timedatectl set-ntp true" if clock.can_synchronize else install_command([CHRONY])
    yield warning("clock", "this machine's clock is not synchronized", mend)
