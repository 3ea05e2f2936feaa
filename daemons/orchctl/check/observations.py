"""What `orchctl check` asks, all at once and each within a limit: the queen, and pool-managerd where there is one.

A question that is not answered is a fact too: the CommandError that says why.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial

import trio
from pydantic import BaseModel

from llama_orch import VERSION
from llama_orch.contracts.meta import Readiness, Version
from llama_orch.contracts.nodes import NodeList, NodeReachability
from llama_orch.contracts.pools import PoolList
from llama_orch.contracts.sessions import SessionList
from llama_orch.http.tls.expiry import wall_clock
from llama_orch.settings.tokens import TOKEN
from llama_orch.settings.types import Secret
from orchctl.check.certificates import Certificate, own, presented
from orchctl.check.local_node import LocalNode, Nodes, local
from orchctl.check.queries import NOT_ASKED, answer, limited
from orchctl.client import QueenClient, below, understood, ungrouped
from orchctl.errors import CommandError

AT_ONCE = 32
"""How many nodes the queen is asked to look at in one moment."""


@dataclass(frozen=True)
class Observations:
    """What was found. `token` says which token was shown and whence it is, `excused` whether it would go without;
    `ahead_s` is how far the queen's clock is ahead of ours, `reachability` her own view of each node, by its id.
    `looked_at` is this machine's time of day.
    """

    url: str
    own_version: str = VERSION
    token: str | None = None
    excused: bool = False
    ahead_s: float | None = None
    version: Version | CommandError = NOT_ASKED
    ready: Readiness | CommandError = NOT_ASKED
    pools: PoolList | CommandError = NOT_ASKED
    nodes: NodeList | CommandError = NOT_ASKED
    reachability: Mapping[str, NodeReachability | CommandError] = field(default_factory=dict)
    local: LocalNode | None = None
    certificates: Sequence[Certificate] = ()
    looked_at: datetime = field(default_factory=wall_clock)


@dataclass
class _Gathering:
    """The facts as they come in, each asked for by a task of its own."""

    queen: QueenClient
    found: dict[str, object] = field(default_factory=dict)
    nodes: Nodes = NOT_ASKED
    reachability: dict[str, NodeReachability | CommandError] = field(default_factory=dict)
    shown: dict[str, Certificate] = field(default_factory=dict)
    nodes_told: trio.Event = field(default_factory=trio.Event)
    limiter: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, AT_ONCE))

    async def all(self) -> None:
        """Ask everything."""
        with ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, "ready", Readiness, "/ready")
                nursery.start_soon(self._ask, "pools", PoolList, "/v2/pools")
                nursery.start_soon(self._version)
                if self.queen.token:
                    nursery.start_soon(self._without_token)
                nursery.start_soon(self._certificate, self.queen.url, "queen-rbee")
                nursery.start_soon(self._nodes)
                nursery.start_soon(self._local)

    async def _ask(self, name: str, model: type[BaseModel], path: str) -> None:
        self.found[name] = await limited(partial(answer, self.queen, path, model))

    async def _version(self) -> None:
        self.found["version"] = await limited(self._version_and_clock, self.queen.url)

    async def _without_token(self) -> None:
        """Who is excused from the token learns nothing of it by an answer, whatever it is."""
        bare = replace(self.queen, token=None)
        without = await limited(partial(answer, bare, below("/v2/sessions", limit=1), SessionList))
        self.found["excused"] = not isinstance(without, CommandError)

    async def _version_and_clock(self) -> Version:
        asked = time.time()
        async with self.queen.ask("GET", "/v2/meta/version") as response:
            between = (asked + time.time()) / 2
            self.found["ahead_s"] = ahead(response.headers.get("date"), between)
            return understood(Version, await response.read())

    async def _nodes(self) -> None:
        nodes = self.nodes = await limited(partial(answer, self.queen, "/v2/nodes", NodeList))
        self.nodes_told.set()
        if isinstance(nodes, NodeList):
            async with trio.open_nursery() as nursery:
                for node in nodes.nodes:
                    nursery.start_soon(self._reachability, node.node_id)

    async def _reachability(self, node_id: str) -> None:
        path = below("/v2/nodes", node_id, "reachability")
        async with self.limiter:
            self.reachability[node_id] = await limited(partial(answer, self.queen, path, NodeReachability))

    async def _local(self) -> None:
        found = self.found["local"] = await local(self.queen, os.environ, self._when_told)
        await self._certificate(found.url, "pool-managerd")

    async def _when_told(self) -> Nodes:
        await self.nodes_told.wait()
        return self.nodes

    async def _certificate(self, url: str, daemon: str) -> None:
        if found := await presented(url, daemon):
            self.shown[daemon] = found

    @property
    def certificates(self) -> list[Certificate]:
        """Those of daemons, and then those of our files."""
        return [*(self.shown[daemon] for daemon in sorted(self.shown, reverse=True)), *own()]


async def gathered(queen: QueenClient) -> Observations:
    """Everything that can be found out now."""
    gathering = _Gathering(queen)
    await gathering.all()
    found = gathering.found
    found |= {"nodes": gathering.nodes, "reachability": gathering.reachability, "certificates": gathering.certificates}
    return Observations(queen.url, token=token_words(queen.token), **found)  # type: ignore[arg-type]


def ahead(date: str | None, now: float) -> float | None:
    """How far the clock is ahead of `now` that wrote the header Date, which is cut off to whole seconds."""
    try:
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except ValueError:
        return None


def token_words(token: str | None) -> str | None:
    """Which token it is and where it comes from; never the token."""
    if token is None:
        return None
    source = TOKEN.source(os.environ)
    named = {"environment": TOKEN.variable, "file": f"{TOKEN.file}={os.environ.get(TOKEN.file)}"}
    return f"{Secret(token)} from {named.get(source, source)}"
