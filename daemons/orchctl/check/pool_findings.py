"""Findings about pools: whether one is ready, and what is wrong with the others. Pure functions."""

from collections.abc import Iterator

from llama_orch.contracts.pools import PoolList, PoolState, PoolStatus
from orchctl.check.findings import Finding, ok, problem, token_refused, warning
from orchctl.check.observations import Observations
from orchctl.check.queen_findings import JOURNAL
from orchctl.commands.pools import CONFIGURE_HINT, full_name
from orchctl.tables import one_line

NOT_SERVING = (PoolState.FAILED, PoolState.OFFLINE)
LOADED_ON_DEMAND = (PoolState.UNLOADED, PoolState.ASLEEP)


def pool_findings(observed: Observations) -> Iterator[Finding]:
    if isinstance(observed.pools, PoolList):
        yield _summary(observed.pools)
        for pool in observed.pools.pools:
            yield from _findings_of(pool)
    elif not token_refused(observed.pools):
        yield problem("pools", f"/v2/pools: {observed.pools.message}", JOURNAL)


def _summary(pools: PoolList) -> Finding:
    ready = sum(pool.ready for pool in pools.pools)
    unloaded = sum(pool.state is PoolState.UNLOADED for pool in pools.pools)
    asleep = sum(pool.state is PoolState.ASLEEP for pool in pools.pools)
    text = f"{ready} of {len(pools.pools)} ready" + (f", {unloaded} unloaded" if unloaded else "")
    text += f", {asleep} on nodes that sleep" if asleep else ""
    if ready or unloaded or asleep:
        return ok("pools", text)
    if pools.pools:
        return problem("pools", text, "No task can run until a pool is ready; the reasons follow.")
    advice = f"{CONFIGURE_HINT}. If pools are configured: journalctl -x -u pool-managerd -u engine-provisioner"
    return problem("pools", "no pools are known", advice)


def _findings_of(pool: PoolStatus) -> Iterator[Finding]:
    subject = f"pool {full_name(pool)}"
    if pool.state in NOT_SERVING:
        advice = f"On its machine: journalctl -x POOL_ID={pool.pool_id}"
        yield problem(subject, f"{pool.state}: {one_line(pool.last_error)}", advice)
    elif pool.draining:
        yield warning(subject, "drained, gets no tasks", f"To undo the drain: {_resume_command(pool)}")
    elif not pool.ready and pool.state not in LOADED_ON_DEMAND:
        reason = f": {one_line(pool.last_error)}" if pool.last_error else ""
        advice = f"If this persists: journalctl -x POOL_ID={pool.pool_id}"
        yield warning(subject, f"{pool.state}, not ready{reason}", advice)
    if pool.circuit != "closed":
        make, until = (problem, "it is healthy") if pool.circuit == "open" else (warning, "its health check has ended")
        text = f"its circuit is {pool.circuit}: after failures, the queen sends it no tasks until {until}"
        yield make(subject, text, f"See journalctl -u queen-rbee POOL_ID={pool.pool_id}")


def _resume_command(pool: PoolStatus) -> str:
    return f"orchctl resume {pool.pool_id}" + (f" --node {pool.node_id}" if pool.node_id else "")
