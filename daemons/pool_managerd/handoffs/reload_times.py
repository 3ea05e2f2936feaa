"""How long reloads take, from engine-provisioner's reports."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from llama_orch.contracts.pools import ProvisioningReport
from llama_orch.contracts.reloads import ReloadState


@dataclass(frozen=True)
class EndedReload:
    """A reload that has ended, and was not called off."""

    pool_id: str
    took_s: float
    success: bool


@dataclass
class ReloadTimes:
    """The reloads that run, by pool: their id, and when they were first seen, in seconds on one clock."""

    _running: dict[str, tuple[str, float]] = field(default_factory=dict)

    def update(self, reports: Iterable[ProvisioningReport], now_s: float) -> Iterator[EndedReload]:
        """Yield the reloads that have ended since the last call. Those that were never seen running are not counted."""
        before, self._running = self._running, {}
        for report in reports:
            reload = report.reload
            if reload is None:
                continue
            reload_id, since_s = before.get(report.pool_id, ("", now_s))
            known = reload_id == reload.reload_id
            if not reload.state.ended:
                self._running[report.pool_id] = reload.reload_id, since_s if known else now_s
            elif known and reload.state is not ReloadState.CANCELLED:
                yield EndedReload(report.pool_id, now_s - since_s, reload.state is ReloadState.DONE)
