"""What engine-provisioner's own plan says about the pools: missing tools, GPUs, models, memory, ports."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.service.exit import ExitStatus
from orchctl.check.findings import Finding, ok, problem, warning
from orchctl.child import output_of
from orchctl.doctor.site import Site, Unknown
from orchctl.provisioner import NAME

COMMAND = f"{NAME} plan"
RUNNING = ("ready", "draining")


class PlanProblem(Outbound):
    message: str
    hint: str = ""


class PoolPlan(Outbound):
    """A pool of `engine-provisioner plan --json`."""

    pool_id: str
    mode: str
    state: str | None = None
    problems: Sequence[PlanProblem] = ()


class Plans(Outbound):
    """The output. `refusal` says why there is none, such as the problems of the pools files."""

    pools: Sequence[PoolPlan] = ()
    refusal: str | None = None


async def observe_plans(site: Site) -> Plans | Unknown:
    if not site.installed(NAME):
        return Plans()
    if not site.root:
        return Unknown("only root can read what engine-provisioner reads", "sudo orchctl doctor")
    shown = await output_of(NAME, "plan", "--json", limit_s=4.5)
    if shown.status is None:
        return Unknown(shown.problem, f"{COMMAND} takes longer: run it")
    try:
        return Plans.model_validate_json(shown.out)
    except ValidationError:
        if shown.status == ExitStatus.CONFIG:
            return Plans(refusal=" ".join(shown.err.split())[:2000])
        return Unknown(f"{COMMAND} failed with status {shown.status}", f"{COMMAND} says more")


def plan_findings(plans: Plans) -> Iterator[Finding]:
    """A problem of a pool that serves is a warning: it concerns the next start."""
    if plans.refusal:
        yield problem("pools file", plans.refusal, f"Correct the file, then: systemctl reload {NAME}")
        return
    for pool in plans.pools:
        make = warning if pool.state in RUNNING else problem
        for each in pool.problems:
            yield make(f"pool {pool.pool_id}", f"mode {pool.mode}: {each.message}", each.hint or COMMAND)
    if plans.pools and not any(pool.problems for pool in plans.pools):
        yield ok("plan", f"nothing prevents the {len(plans.pools)} pools of this machine from starting")
