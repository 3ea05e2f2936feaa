"""The command `engine-provisioner plan`."""

import argparse
from functools import partial

import trio

from engine_provisioner.plan.documents import as_json, as_text
from engine_provisioner.plan.pool_plan import Planner, PoolPlan
from engine_provisioner.plan.remote_size import size_of
from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.spec import pools_directory
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.service.exit import ExitStatus
from llama_orch.service.output import complain
from llama_orch.service.run import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pool", nargs="*", metavar="POOL", help="the id of a pool (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(settings: ProvisionerSettings, options: argparse.Namespace) -> int:
    """Print the plan of the chosen pools; return 0 if all could start, 78 or 69 if one could not."""
    path = pools_directory.path_for(settings.pools_config)
    pools = pools_directory.read(path) or []
    chosen = [pool for pool in pools if not options.pool or pool.id in options.pool]
    if unknown := sorted(set(options.pool) - {pool.id for pool in pools}):
        there = ", ".join(pool.id for pool in pools) or "none"
        complain(f"engine-provisioner: no pool {', '.join(unknown)} in {path} (there: {there})")
        return ExitStatus.USAGE
    plans = trio.run(partial(_plan, settings, pools, chosen))
    status = exit_status(plans)
    print(as_json(plans, status) if options.json else as_text(plans))  # noqa: T201
    return status


async def _plan(settings: ProvisionerSettings, pools: list[Pool], chosen: list[Pool]) -> list[PoolPlan]:
    planner = Planner(settings, pools, size_of)
    return [await planner.plan(pool) for pool in chosen]


def exit_status(plans: list[PoolPlan]) -> ExitStatus:
    """Return the status for all plans: what only another configuration solves counts before what the machine lacks."""
    problems = [problem for plan in plans for problem in plan.problems]
    if any(problem.configured for problem in problems):
        return ExitStatus.CONFIG
    return ExitStatus.UNAVAILABLE if problems else ExitStatus.OK


PLAN = Command("plan", "print what would be done for each pool, and do nothing", add_arguments, run)
