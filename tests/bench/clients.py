"""Clients of an overloaded queen-rbee. Each submits a task, reads its events, and retries once if it is refused.

A client that is refused, or dropped from the queue, waits for the given time and submits the same body with the same
task_id again. The result shows whether that time was right. Half of the clients use Retry-After (whole seconds), the
others the milliseconds.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from uuid import UUID

import trio

from queen_rbee.dispatch.queue import Priority
from tests.bench.wire import Answer, Wire, encoded

WORDS = "the queue moves on and the engine answers one after the other "
CANCEL_EVERY = 20
"""One client in this many cancels its task at the first token."""
DROPPED = "QUEUE_FULL_DROP_LRU"


@dataclass
class Ledger:
    """Results of all clients, with times in seconds. `until` is the end of the overload on trio's clock."""

    until: float
    accepted: int = 0
    waits: dict[Priority, list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    dropped: Counter[Priority] = field(default_factory=Counter)
    delays_s: list[float] = field(default_factory=list)
    without_delay: list[bytes] = field(default_factory=list)
    retried: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Retries, by the header that was used and the status of the response."""
    dropped_again: int = 0


@dataclass(frozen=True)
class RetryAfter:
    """Time until a retry in seconds: from Retry-After, and from the milliseconds."""

    header_s: float
    exact_s: float


@dataclass(frozen=True)
class Client:
    """A client. `number` is unique. All prompts are different and have the same length."""

    port: int
    ledger: Ledger
    number: int
    tokens: int
    cancels: bool = True

    @property
    def priority(self) -> Priority:
        """Every other client submits a batch task."""
        return "batch" if self.number % 2 else "interactive"

    @property
    def header(self) -> str:
        """The header that determines the time of the retry."""
        return "x-backoff-ms" if self.number // 2 % 2 else "retry-after"

    async def run(self) -> None:
        """Submit the task, and retry once if it is refused or dropped."""
        if delay := await self._attempt(again=False):
            await trio.sleep(delay.exact_s if self.header == "x-backoff-ms" else delay.header_s)
            await self._attempt(again=True)

    async def _attempt(self, *, again: bool) -> RetryAfter | None:
        task_id = UUID(int=self.number + 1, version=4)
        prompt = f"{self.number:08d} {WORDS}"
        body = {"task_id": str(task_id), "prompt": prompt, "max_tokens": self.tokens, "priority": self.priority}
        begun = trio.current_time()
        with await Wire.open(self.port) as wire:
            answer = await wire.ask(encoded("POST", "/v2/tasks", body))
            if again:
                self.ledger.retried[self.header, answer.status] += 1
            if answer.status != 202:
                return None if again else self._refused(answer)
            self.ledger.accepted += 1
            return await self._watch(wire, json.loads(answer.body)["streams"]["sse"], begun, again=again)

    def _refused(self, answer: Answer) -> RetryAfter | None:
        self.ledger.refused[answer.status] += 1
        delay = retry_after(answer)
        if delay is None:
            self.ledger.without_delay.append(answer.head + answer.body)
        else:
            self.ledger.delays_s.append(delay.exact_s)
        return delay

    async def _watch(self, wire: Wire, path: str, begun: float, *, again: bool) -> RetryAfter | None:
        started, endings = False, 0
        await wire.begin(encoded("GET", path))
        async for event in wire.events():
            if event.name == b"token" and not started:
                started = True
                self._started(begun)
                await self._cancel_some(path)
            if event.name in (b"end", b"error"):
                endings += 1
                last = json.loads(event.data)
        self.ledger.ended[last.get("code", "done") if endings == 1 else f"{endings} times"] += 1
        return self._dropped(last, again=again) if last.get("code") == DROPPED else None

    def _started(self, begun: float) -> None:
        if begun < self.ledger.until:
            self.ledger.waits[self.priority].append(trio.current_time() - begun)

    async def _cancel_some(self, path: str) -> None:
        if self.cancels and self.number % CANCEL_EVERY == 0:
            with await Wire.open(self.port) as wire:
                await wire.ask(encoded("POST", path.replace("events", "cancel")))

    def _dropped(self, error: dict[str, float], *, again: bool) -> RetryAfter | None:
        if again:
            self.ledger.dropped_again += 1
            return None
        self.ledger.dropped[self.priority] += 1
        wait_s = error["retry_after_ms"] / 1000
        self.ledger.delays_s.append(wait_s)
        return RetryAfter(wait_s, wait_s)


def retry_after(answer: Answer) -> RetryAfter | None:
    """Parse the three values of a refusal. Return None if one is missing or they are inconsistent."""
    header, exact = answer.field(b"retry-after"), answer.field(b"x-backoff-ms")
    body = json.loads(answer.body).get("retry_after_ms")
    if header is None or exact is None or body != int(exact) or not 0 <= 1000 * int(header) - body < 1000:
        return None
    return RetryAfter(int(header), body / 1000)
