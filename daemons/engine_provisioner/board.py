"""What is known of each pool, shown to everybody who asks: files for pool-managerd, readiness, metrics, STATUS=.

Owns `status/<pool_id>.json` in the handoff directory; each is written when its pool's state or reason changes.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as Metric

from engine_provisioner import durable_file
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.pools import PoolState, ProvisioningReport

log = logging.getLogger(__name__)

ORDER = (
    PoolState.READY,
    PoolState.STARTING,
    PoolState.PROVISIONING,
    PoolState.UNINITIALIZED,
    PoolState.FAILED,
    PoolState.OFFLINE,
)
STATUS_LIMIT = 500


class Board:
    """The last report of each pool. Not safe for threads; `changed` is set whenever a report is."""

    def __init__(self, directory: Path, registry: CollectorRegistry) -> None:
        self._directory = directory
        self._reports: dict[str, ProvisioningReport] = {}
        self.changed = trio.Event()
        self._state = Gauge(
            "provisioner_pool_state", "1 for the state a pool is in", ["pool_id", "state"], registry=registry
        )
        self.starts = Metric(
            "provisioner_engine_starts", "engines started and found healthy", ["pool_id"], registry=registry
        )
        self.failures = Metric("provisioner_failures", "failed tries to have a pool", ["pool_id"], registry=registry)

    async def post(
        self,
        pool_id: str,
        engine: str,
        state: PoolState,
        detail: str | None = None,
        last_error: str | None = None,
        workloads: list[Workload] | None = None,
    ) -> None:
        """Make this the pool's report. A file that cannot be written is logged; the pool goes on without it."""
        report = ProvisioningReport(
            pool_id=pool_id,
            state=state,
            engine=engine,
            detail=detail and detail[:1024],
            last_error=last_error and last_error[:4096],
            workloads=workloads,
            updated_at=datetime.now(UTC),
        )
        before = self._reports.get(pool_id)
        self._reports[pool_id] = report
        if before and before.model_copy(update={"updated_at": report.updated_at}) == report:
            return
        for each in PoolState:
            self._state.labels(pool_id, each.value).set(each is state)
        self.changed.set()
        self.changed = trio.Event()
        await self._write(report)

    async def _write(self, report: ProvisioningReport) -> None:
        path = self._directory / f"{report.pool_id}.json"
        content = report.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode() + b"\n"
        try:
            await trio.to_thread.run_sync(durable_file.replace, path, content)
        except OSError as error:
            log.error("cannot write %s: %s", path, error.strerror or error)

    def waiting_for(self) -> list[str]:
        """What stands against being ready: each pool that is wanted and does not answer yet."""
        done = (PoolState.READY, PoolState.OFFLINE)
        return [
            f"pool {report.pool_id} is {report.state.value}"
            for report in self._reports.values()
            if report.state not in done
        ]

    def summary(self) -> str:
        """One line for people."""
        return summary(self._reports.values())


def summary(reports: Iterable[ProvisioningReport]) -> str:
    """As in `1 pool ready, 1 starting, 1 failed: cuda: GPU 1 is configured and not in this machine`."""
    reports = list(reports)
    if not reports:
        return "no pools"
    counts = Counter(report.state for report in reports)
    parts = [f"{counts[state]} {state.value}" for state in ORDER if counts[state]]
    first, _, rest = parts[0].partition(" ")
    parts[0] = f"{first} pool{'s' * (first != '1')} {rest}"
    failed = "; ".join(f"{r.pool_id}: {r.last_error}" for r in reports if r.state is PoolState.FAILED)
    text = ", ".join(parts) + (f": {failed}" if failed else "")
    return text if len(text) <= STATUS_LIMIT else text[: STATUS_LIMIT - 1] + "…"
