"""A pool whose engine another program runs: it is watched, and announced while it answers, but never started."""

from functools import partial
from typing import NoReturn

import trio

from engine_provisioner.modes.external import ExternalMode
from engine_provisioner.report.handoffs import Announcement
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.workloads import served
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import LIMIT_S, Condition
from llama_orch.engines import KINDS
from llama_orch.engines.kind import Description

CHECK_EVERY_S = 2.0
MISSES = 3
"""Consecutive failed checks after which an engine that answered counts as gone; a busy engine may miss some."""


class ExternalPool:
    """Watches and announces the engine at `mode.url`."""

    def __init__(self, pool: Pool, mode: ExternalMode, reporter: PoolReporter, deadline: StepDeadline) -> None:
        self._pool = pool
        self._url = mode.url
        self._reporter = reporter
        self._deadline = deadline
        self._check = partial(health.check, mode.url, pool.engine)

    async def run(self) -> NoReturn:
        """Watch the engine. Raises ProvisioningFailure only if the handoff file cannot be written.

        An absent engine is no reason to end, since it may come back at any time.
        """
        misses, ready, reported = 0, False, ""
        while True:
            self._deadline.expect(CHECK_EVERY_S + 4 * LIMIT_S, "watching an engine")
            seen = await self._check()
            misses = 0 if seen.condition is Condition.UP else misses + 1
            if seen.condition is Condition.UP and not ready:
                description = await health.describe(self._url, self._pool.engine)
                await self._reporter.ready(announcement(self._pool, self._url, description), adopted=True)
                ready, reported = True, ""
            elif seen.condition is Condition.LOADING and not ready:
                await self._reporter.starting(seen.detail)
            elif misses >= (MISSES if ready else 1):
                ready = False
                reason = f"the engine at {self._url} does not answer: {seen.detail}"
                if reason != reported:
                    await self._reporter.failed(reason, f"checked again every {CHECK_EVERY_S:g} s")
                reported = reason
            await trio.sleep(CHECK_EVERY_S)


def announcement(pool: Pool, url: str, reported: Description) -> Announcement:
    """Return the announcement of an external engine: its own description first, then keys that the pools file sets.

    The default of `ctx` is not announced, since it may not be the engine's limit.
    """
    ctx = pool.ctx if "ctx" in pool.model_fields_set else None
    return Announcement(
        pool_id=pool.id,
        engine=pool.engine,
        engine_version=reported.version or "unknown",
        mode="external",
        url=url,
        slots=reported.slots or pool.slots,
        ctx=reported.ctx_max or ctx,
        device_mask=None,
        model=_model(pool, reported),
        workloads=served(pool, reported.workloads),
    )


def _model(pool: Pool, reported: Description) -> str | None:
    """Return the model's name. llama-server accepts any name, so the pools file may set it; other engines only accept
    the name under which they serve the model."""
    configured = model_name(pool.model.ref) if pool.model else None
    return (configured or reported.only_model) if KINDS[pool.engine].accepts_any_model_name else reported.only_model
