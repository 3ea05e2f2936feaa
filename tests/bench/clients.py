"""Clients of a queen that has more to do than she can: each hands in one task, watches it to its end, and obeys once.

A client that is refused, or dropped while it waits, sleeps as long as it was told and hands the same body in again,
with the same task_id; what becomes of it then decides whether it was told the truth. Every other one obeys the header
Retry-After, in whole seconds, the others the milliseconds beside it.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from uuid import UUID

import trio

from queen_rbee.dispatch.queue import Priority
from tests.bench.wire import Answer, Wire, encoded

WORDS = "the queue moves on and the engine answers one after the other "
CANCELS = 20
"""Each client of so many cancels its task at the first token."""
DROPPED = "QUEUE_FULL_DROP_LRU"


@dataclass
class Ledger:
    """What all clients saw together, times in seconds; `until` is when the overload ends, on trio's clock."""

    until: float
    accepted: int = 0
    waits: dict[Priority, list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    dropped: Counter[Priority] = field(default_factory=Counter)
    told_s: list[float] = field(default_factory=list)
    untold: list[bytes] = field(default_factory=list)
    came_back: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By what was obeyed, and the status of the answer."""
    dropped_again: int = 0


@dataclass(frozen=True)
class Told:
    """When to come again, in seconds: as the header has it, and as the milliseconds have it."""

    header_s: float
    exact_s: float


@dataclass(frozen=True)
class Client:
    """One of them; numbers differ. Its prompt is like no other's, and as long."""

    port: int
    ledger: Ledger
    number: int
    tokens: int
    cancels: bool = True

    @property
    def priority(self) -> Priority:
        """Every other one can wait."""
        return "batch" if self.number % 2 else "interactive"

    @property
    def obeys(self) -> str:
        """Which of the two times it takes at its word."""
        return "x-backoff-ms" if self.number // 2 % 2 else "retry-after"

    async def live(self) -> None:
        """From the first attempt to the end of the second, if that is needed."""
        if told := await self._attempt(again=False):
            await trio.sleep(told.exact_s if self.obeys == "x-backoff-ms" else told.header_s)
            await self._attempt(again=True)

    async def _attempt(self, *, again: bool) -> Told | None:
        task_id = UUID(int=self.number + 1, version=4)
        prompt = f"{self.number:08d} {WORDS}"
        body = {"task_id": str(task_id), "prompt": prompt, "max_tokens": self.tokens, "priority": self.priority}
        begun = trio.current_time()
        with await Wire.open(self.port) as wire:
            answer = await wire.ask(encoded("POST", "/v2/tasks", body))
            if again:
                self.ledger.came_back[self.obeys, answer.status] += 1
            if answer.status != 202:
                return None if again else self._refused(answer)
            self.ledger.accepted += 1
            return await self._watch(wire, json.loads(answer.body)["streams"]["sse"], begun, again=again)

    def _refused(self, answer: Answer) -> Told | None:
        self.ledger.refused[answer.status] += 1
        told = told_by(answer)
        if told is None:
            self.ledger.untold.append(answer.head + answer.body)
        else:
            self.ledger.told_s.append(told.exact_s)
        return told

    async def _watch(self, wire: Wire, path: str, begun: float, *, again: bool) -> Told | None:
        started, endings = False, 0
        await wire.begin(encoded("GET", path))
        async for event in wire.events():
            if event.name == b"token" and not started:
                started = True
                self._started(begun)
                await self._perhaps_cancel(path)
            if event.name in (b"end", b"error"):
                endings += 1
                last = json.loads(event.data)
        self.ledger.ended[last.get("code", "done") if endings == 1 else f"{endings} times"] += 1
        return self._dropped(last, again=again) if last.get("code") == DROPPED else None

    def _started(self, begun: float) -> None:
        if begun < self.ledger.until:
            self.ledger.waits[self.priority].append(trio.current_time() - begun)

    async def _perhaps_cancel(self, path: str) -> None:
        if self.cancels and self.number % CANCELS == 0:
            with await Wire.open(self.port) as wire:
                await wire.ask(encoded("POST", path.replace("events", "cancel")))

    def _dropped(self, error: dict[str, float], *, again: bool) -> Told | None:
        if again:
            self.ledger.dropped_again += 1
            return None
        self.ledger.dropped[self.priority] += 1
        wait_s = error["retry_after_ms"] / 1000
        self.ledger.told_s.append(wait_s)
        return Told(wait_s, wait_s)


def told_by(answer: Answer) -> Told | None:
    """What a refusal says in its three places; None where one is missing or they do not agree."""
    header, exact = answer.field(b"retry-after"), answer.field(b"x-backoff-ms")
    body = json.loads(answer.body).get("retry_after_ms")
    if header is None or exact is None or body != int(exact) or not 0 <= 1000 * int(header) - body < 1000:
        return None
    return Told(int(header), body / 1000)
