"""Keeps the registry in step with one pool-managerd by long polls: a change is known within milliseconds.

A pool-managerd that does not answer (it restarts, say) does not make its pools vanish: engines outlive it, so what it
said last stays in force for GRACE_S seconds.
"""

import logging
import random
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio
from pydantic import ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.pools import PoolStatus
from llama_orch.http.client.client import UpstreamError, fetch
from llama_orch.settings.types import Secret
from queen_rbee.metrics import Metrics, check_result
from queen_rbee.pools.registry import Registry

WAIT_MS = 20_000
MARGIN_S = 10.0
GRACE_S = 30.0
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 2.0
ANSWER_LIMIT = 8 << 20
RANK = 0

log = logging.getLogger(__name__)


class Answer(Outbound):
    """What GET /v2/pools of pool-managerd says; `revision` moves with every change."""

    pools: list[PoolStatus]
    revision: int


class NoAnswer(Exception):
    """It was asked and did not answer as it should; the text says how."""


@dataclass
class PoolManagerSource:
    """One pool-managerd by its base URL. `asked` is set when it has been asked once, with or without success."""

    url: str
    token: Secret | None
    registry: Registry
    metrics: Metrics
    tls: ssl.SSLContext | None = None
    asked: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Ask for ever."""
        revision: int | None = None
        pool_ids: list[str] = []
        last_answer, retry_s = trio.current_time(), FIRST_RETRY_S
        while True:
            asked_at = trio.current_time()
            try:
                answer = await self._ask(revision)
            except NoAnswer as error:
                if revision is not None:
                    log.warning("pool-managerd at %s does not answer: %s", self.url, error)
                self.asked.set()
                revision = None
                for pool_id in pool_ids:
                    self.metrics.checked(pool_id, "unreachable")
                if trio.current_time() - last_answer > GRACE_S:
                    self.registry.forget(self.url)
                    pool_ids = []
                await trio.sleep(retry_s * random.uniform(0.8, 1.2))  # noqa: S311 -- jitter
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                continue
            self.registry.update(self.url, RANK, answer.pools)
            # whoever is asked for what has changed since may wait with the answer
            self._count(answer.pools, trio.current_time() - asked_at if revision is None else None)
            log.debug("pool-managerd at %s has %d pools, revision %d", self.url, len(answer.pools), answer.revision)
            self.asked.set()
            pool_ids = [pool.pool_id for pool in answer.pools]
            revision, last_answer, retry_s = answer.revision, trio.current_time(), FIRST_RETRY_S

    def _count(self, pools: Iterable[PoolStatus], took_s: float | None) -> None:
        for pool in pools:
            self.metrics.checked(pool.pool_id, check_result(pool), took_s)

    async def _ask(self, revision: int | None) -> Answer:
        query = "" if revision is None else f"?after={revision}&wait_ms={WAIT_MS}"
        headers = {"authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}
        limit_s = WAIT_MS / 1000 + MARGIN_S if query else MARGIN_S
        try:
            status, body = await fetch(
                f"{self.url}/v2/pools{query}", limit_s=limit_s, headers=headers, size=ANSWER_LIMIT, tls=self.tls
            )
        except UpstreamError as error:
            raise NoAnswer(str(error)) from error
        if status != 200:
            raise NoAnswer(f"it answers {status}")
        try:
            return Answer.model_validate_json(body)
        except ValidationError as error:
            raise NoAnswer("its answer is not understood; do the versions differ?") from error
