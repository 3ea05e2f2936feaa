"""A fake queen for the agent, without a network: scripted answers and recorded requests."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from llama_orch.contracts.nodes import Heartbeat, NodeRegistration
from pool_managerd.cluster.registration import HeartbeatAccepted, NodeUnknown, Outcome, Registered

HEARD = HeartbeatAccepted(10_000)
ACCEPTED = Registered("welcome")


@dataclass
class FakeQueen:
    """Answers registrations and heartbeats from `answers`, and accepts them once these are used up.

    `asked` has each request with its time: "register", "heartbeat" or "forget". With `mute` it never answers.
    """

    answers: deque[Outcome] = field(default_factory=deque)
    asked: list[tuple[str, float]] = field(default_factory=list)
    registrations: list[NodeRegistration] = field(default_factory=list)
    beats: list[Heartbeat] = field(default_factory=list)
    mute: bool = False
    news: trio.Event = field(default_factory=trio.Event)

    async def register(self, node: NodeRegistration) -> Outcome:
        self.registrations.append(node)
        return await self._answer("register", ACCEPTED)

    async def heartbeat(self, _node_id: str, beat: Heartbeat) -> Outcome:
        self.beats.append(beat)
        return await self._answer("heartbeat", HEARD)

    async def forget(self, _node_id: str, _instance_id: str) -> Outcome:
        return await self._answer("forget", NodeUnknown())

    async def _answer(self, what: str, usual: Outcome) -> Outcome:
        self.asked.append((what, trio.current_time()))
        news, self.news = self.news, trio.Event()
        news.set()
        if self.mute:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return self.answers.popleft() if self.answers and what != "forget" else usual

    @property
    def order(self) -> list[str]:
        """The requests in order."""
        return [what for what, _at in self.asked]

    @property
    def times(self) -> list[float]:
        """The times of the requests."""
        return [at for _what, at in self.asked]

    async def until_asked(self, count: int) -> None:
        """Return after `count` requests."""
        while len(self.asked) < count:
            await self.news.wait()

    def will(self, answers: Iterable[Outcome]) -> None:
        """Script the next answers."""
        self.answers.extend(answers)
