"""What earlier runs left behind: handoff files of engines that may be gone, pools that the pools file names no more."""

import logging
from collections.abc import Iterable
from pathlib import Path

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch.launcher import Launcher
from engine_provisioner.report import announcing
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.provisioning_spec import External
from llama_orch.telemetry.events.provisioning import ENGINE_RETIRED
from llama_orch.telemetry.records import emit

log = logging.getLogger(__name__)


def withdraw_all(handoff_dir: Path, wanted: Iterable[str]) -> list[str]:
    """Remove the handoff files of all pools that this daemon has ever reported, and the reports of those not `wanted`.

    A wanted engine that still runs is announced again. Returns the pools that are gone. Blocks; raises OSError.
    """
    reported = {path.stem: path for path in (handoff_dir / "status").glob("*.json")}
    for pool_id in (*reported, *wanted):
        announcing.withdraw(handoff_dir, pool_id)
    gone = sorted(set(reported) - set(wanted))
    for pool_id in gone:
        reported[pool_id].unlink(missing_ok=True)
    return gone


async def retire_unwanted(pools: list[Pool], launcher: Launcher) -> None:
    """Stop the engines of pools that the file no longer names, or no longer as engines of ours."""
    managed = {pool.id for pool in pools if not isinstance(pool.provisioning, External)}
    try:
        for pool_id in sorted(await launcher.leftovers() - managed):
            await launcher.retire(pool_id)
            emit(ENGINE_RETIRED, pool_id=pool_id)
    except (ProvisioningFailure, OSError) as failure:
        log.warning("engines of pools that are gone may still run: %s", failure)
