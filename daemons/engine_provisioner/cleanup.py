"""Cleaning up after earlier runs: stale handoff files, and engines of pools that left the pools file."""

import logging
from collections.abc import Iterable
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch.launcher import Launcher
from engine_provisioner.report import handoffs
from engine_provisioner.spec.pool_spec import Pool
from llama_orch.telemetry.events.provisioning import ENGINE_RETIRED
from llama_orch.telemetry.records import emit

log = logging.getLogger(__name__)


def withdraw_all(handoff_dir: Path, configured: Iterable[str]) -> list[str]:
    """Remove the handoff files of this daemon's pools, and the status reports of those no longer `configured`.

    An engine that still runs is announced again later. Returns the pools that were removed. Blocks; raises OSError.
    """
    reports = {path.stem: path for path in (handoff_dir / "status").glob("*.json")}
    for pool_id in (*reports, *configured):
        handoffs.remove(handoff_dir, pool_id)
    removed = sorted(set(reports) - set(configured))
    for pool_id in removed:
        reports[pool_id].unlink(missing_ok=True)
    return removed


async def stop_unconfigured(pools: list[Pool], launcher: Launcher) -> None:
    """Stop the engines of pools that are no longer configured, or now use an engine that this daemon does not start."""
    managed = {pool.id for pool in pools if pool.provisioning.starts_engine}
    try:
        for pool_id in sorted(await launcher.known_pools() - managed):
            await launcher.remove(pool_id)
            emit(ENGINE_RETIRED, pool_id=pool_id)
    except (ProvisioningFailure, OSError) as failure:
        log.warning("engines of removed pools may still be running: %s", failure)
