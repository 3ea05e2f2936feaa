"""What would stop a new pool, found before its file is written. Nothing is changed and no file is downloaded."""

from functools import partial

import trio

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.web import Web
from engine_provisioner.plan.pool_plan import Planner, Problem
from engine_provisioner.pulls import request_of
from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.sources.registry import source_of
from engine_provisioner.sources.source import SourceContext
from engine_provisioner.spec.pool_spec import Pool

ASK_S = 15.0
"""How long the model's source is asked. A slow one is no obstacle: the pool waits for it."""


async def obstacles(settings: ProvisionerSettings, context: SourceContext, pool: Pool) -> list[Problem]:
    """Return why `pool` could not start here: an absent GPU, a missing tool, a model that its source does not have.

    Modes whose engines only root can look at are left out, and so is a server that cannot be reached now.
    """
    if pool.provisioning.mode == "container" or not pool.provisioning.starts_engine:
        return []
    planned = await Planner(settings, [pool], _no_size).plan(pool)
    return planned.problems or await _refusals_of_source(context, pool)


async def _no_size(_url: str) -> int | None:
    return None


async def _refusals_of_source(context: SourceContext, pool: Pool) -> list[Problem]:
    assert pool.model is not None, "policies.contradictions requires it"
    source, request = source_of(pool.model.ref), request_of(pool)
    with trio.move_on_after(ASK_S):
        try:
            stored = await trio.to_thread.run_sync(partial(source.stored, request, context))
            if source.resolve is not None and stored is None:
                async with Web(ASK_S) as web:
                    await source.resolve(request, context, web)
        except ProvisioningFailure as failure:
            if failure.retry in (Retry.NEVER, Retry.AFTER_FIX):
                return [Problem(failure.message, failure.hint, configured=True)]
        except OSError:
            pass  # the pool reports what it cannot read, and tries again
    return []
