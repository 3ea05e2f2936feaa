"""The life of a pool whose engine somebody else runs: it is watched, announced when it answers, never started."""

from functools import partial
from typing import NoReturn

import trio

from engine_provisioner.progress import Progress
from engine_provisioner.report.announcing import Announcement
from engine_provisioner.report.voice import Voice
from engine_provisioner.spec.model_name import model_name
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.provisioning_spec import External
from engine_provisioner.spec.workloads import served
from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import LIMIT_S, Condition
from llama_orch.engines import KINDS
from llama_orch.engines.kind import Description

LOOK_EVERY_S = 2.0
MISSES = 3
"""So many looks in a row must fail before an engine that answered counts as gone: it may be busy."""


class ExternalPool:
    """Watches the url in `how`."""

    def __init__(self, pool: Pool, how: External, voice: Voice, progress: Progress) -> None:
        self._pool = pool
        self._url = how.url
        self._voice = voice
        self._progress = progress
        self._look = partial(health.check, how.url, pool.engine)

    async def live(self) -> NoReturn:
        """An engine that is away may come back at any time: only a handoff file that cannot be written is a failure."""
        misses, ready, told = 0, False, ""
        while True:
            self._progress.expect(LOOK_EVERY_S + 4 * LIMIT_S, "watching an engine")
            seen = await self._look()
            misses = 0 if seen.condition is Condition.UP else misses + 1
            if seen.condition is Condition.UP and not ready:
                await self._voice.ready(
                    announcement(self._pool, self._url, await health.describe(self._url, self._pool.engine)),
                    adopted=True,
                )
                ready, told = True, ""
            elif seen.condition is Condition.LOADING and not ready:
                await self._voice.starting(seen.detail)
            elif misses >= (MISSES if ready else 1):
                ready = False
                reason = f"the engine at {self._url} does not answer: {seen.detail}"
                if reason != told:
                    await self._voice.failed(reason, f"looked at again each {LOOK_EVERY_S:g} s")
                told = reason
            await trio.sleep(LOOK_EVERY_S)


def announcement(pool: Pool, url: str, said: Description) -> Announcement:
    """What is announced of an engine that said this of itself; where it says nothing, the pools file counts, as far as
    it says something: no limit is made up for an engine that is not ours."""
    ctx = pool.ctx if "ctx" in pool.model_fields_set else None
    return Announcement(
        pool_id=pool.id,
        engine=pool.engine,
        engine_version=said.version or "unknown",
        mode="external",
        url=url,
        slots=said.slots or pool.slots,
        ctx=said.ctx_max or ctx,
        device_mask=None,
        model=_model(pool, said),
        workloads=served(pool, said.workloads),
    )


def _model(pool: Pool, said: Description) -> str | None:
    """The model's name. llama-server answers to any name, so that the pools file may give it one; the others must be
    asked for a model by the name under which they serve it."""
    given = model_name(pool.model.ref) if pool.model else None
    return (given or said.only_model) if KINDS[pool.engine].accepts_any_model_name else said.only_model
