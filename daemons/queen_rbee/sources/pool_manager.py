"""Keeps the registry in sync with one pool-managerd by long polls, so that a change arrives within milliseconds.

If pool-managerd does not answer, for example because it restarts, its last answer stays in effect for GRACE_S seconds,
because engines outlive it.
"""

import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio
from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.pools import MemoryBudget, PoolStatus
from llama_orch.http.client.client import UpstreamError, fetch
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from llama_orch.settings.types import Secret
from queen_rbee.metrics import Metrics
from queen_rbee.pools.health_results import check_result
from queen_rbee.pools.registry import PoolRegistry

WAIT_MS = 20_000
MARGIN_S = 10.0
GRACE_S = 30.0
FIRST_RETRY_S, MAX_RETRY_S = 0.1, 2.0
BODY_LIMIT = 8 << 20
RANK = 0

log = logging.getLogger(__name__)


class PoolsAnswer(Outbound):
    """The answer of pool-managerd to GET /v2/pools; `revision` changes with every change of a pool."""

    pools: list[PoolStatus]
    revision: int
    memory: list[MemoryBudget] = []


class PollFailure(Exception):
    """A poll failed; the message says how."""


@dataclass
class PoolManagerSource:
    """Polls the pool-managerd at a base URL. `polled` is set after the first poll, whether it succeeded or not."""

    url: str
    token: Secret | None
    registry: PoolRegistry
    metrics: Metrics
    tls: CurrentTls = NO_TLS
    polled: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Poll forever."""
        revision: int | None = None
        pool_ids: list[str] = []
        last_answer, retry_s = trio.current_time(), FIRST_RETRY_S
        while True:
            started_at = trio.current_time()
            try:
                answer = await self._poll(revision)
            except PollFailure as error:
                if revision is not None:
                    log.warning("polling pool-managerd at %s failed: %s", self.url, error)
                self.polled.set()
                revision = None
                for pool_id in pool_ids:
                    self.metrics.checked(pool_id, "unreachable")
                if trio.current_time() - last_answer > GRACE_S:
                    self.registry.forget(self.url)
                    pool_ids = []
                await trio.sleep(retry_s * random.uniform(0.8, 1.2))  # noqa: S311 -- jitter
                retry_s = min(2 * retry_s, MAX_RETRY_S)
                continue
            self.registry.update(self.url, RANK, answer.pools, answer.memory)
            # the answer to a long poll is delayed until something changes, so its duration is no health check's
            self._count_checks(answer.pools, trio.current_time() - started_at if revision is None else None)
            log.debug("pool-managerd at %s has %d pools, revision %d", self.url, len(answer.pools), answer.revision)
            self.polled.set()
            pool_ids = [pool.pool_id for pool in answer.pools]
            revision, last_answer, retry_s = answer.revision, trio.current_time(), FIRST_RETRY_S

    def _count_checks(self, pools: Iterable[PoolStatus], took_s: float | None) -> None:
        for pool in pools:
            self.metrics.checked(pool.pool_id, check_result(pool), took_s)

    async def _poll(self, revision: int | None) -> PoolsAnswer:
        query = "" if revision is None else f"?after={revision}&wait_ms={WAIT_MS}"
        headers = {"authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}
        limit_s = WAIT_MS / 1000 + MARGIN_S if query else MARGIN_S
        try:
            status, body = await fetch(
                f"{self.url}/v2/pools{query}", limit_s=limit_s, headers=headers, size=BODY_LIMIT, tls=self.tls.client
            )
        except UpstreamError as error:
            raise PollFailure(str(error)) from error
        if status != 200:
            raise PollFailure(f"status {status}")
        try:
            return PoolsAnswer.model_validate_json(body)
        except ValidationError as error:
            raise PollFailure("unexpected answer; check that both run the same release") from error
