"""What `orchctl check` asks, all at once and each within a limit: the queen, and pool-managerd where there is one.

A question that is not answered is a fact too: the Failure that says why.
"""

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar

import trio
from pydantic import BaseModel

from llama_orch import VERSION
from llama_orch.contracts.meta import Readiness, Version
from llama_orch.contracts.nodes import NodeList, NodeReachability
from llama_orch.contracts.pools import PoolList
from llama_orch.http.client import UpstreamError
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.tls import CERT_FILE
from llama_orch.settings.tokens import TOKEN
from llama_orch.settings.types import Host, Secret, parse_address
from orchctl.failure import Failure
from orchctl.queen import Queen, below, understood, ungrouped

LIMIT_S = 10.0
"""How long one answer may take, in seconds."""
AT_ONCE = 32
"""How many nodes the queen is asked to look at in one moment."""
BIND_VARIABLE, NODE_ID_VARIABLE = "POOL_MANAGERD_BIND_ADDR", "POOL_MANAGERD_NODE_ID"
NODE_HOST = Host("127.0.0.1", 9200)
UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- what is listened on, and where that answers here
NOT_ASKED = Failure("it was not asked", "", ExitStatus.UNAVAILABLE)

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Local:
    """The pool-managerd of this machine; `node_id` where this environment names it, `expected` where it must be one."""

    url: str
    expected: bool
    ready: Readiness | Failure
    node_id: str | None = None


@dataclass(frozen=True)
class Facts:
    """What was found. `token` says which token was shown and whence it is, `ahead_s` how far the queen's clock is ahead
    of ours; `reachability` is her own view of each node, by its id.
    """

    url: str
    own_version: str = VERSION
    token: str | None = None
    ahead_s: float | None = None
    version: Version | Failure = NOT_ASKED
    ready: Readiness | Failure = NOT_ASKED
    pools: PoolList | Failure = NOT_ASKED
    nodes: NodeList | Failure = NOT_ASKED
    reachability: Mapping[str, NodeReachability | Failure] = field(default_factory=dict)
    local: Local | None = None


@dataclass
class _Gathering:
    """The facts as they come in, each asked for by a task of its own."""

    queen: Queen
    found: dict[str, object] = field(default_factory=dict)
    reachability: dict[str, NodeReachability | Failure] = field(default_factory=dict)
    limiter: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, AT_ONCE))

    async def all(self) -> None:
        """Ask everything."""
        with ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, "ready", Readiness, "/ready")
                nursery.start_soon(self._ask, "pools", PoolList, "/v2/pools")
                nursery.start_soon(self._version)
                nursery.start_soon(self._nodes)
                nursery.start_soon(self._local)

    async def _ask(self, name: str, model: type[BaseModel], path: str) -> None:
        self.found[name] = await limited(partial(answer, self.queen, path, model))

    async def _version(self) -> None:
        self.found["version"] = await limited(self._version_and_clock)

    async def _version_and_clock(self) -> Version:
        asked = time.time()
        async with self.queen.ask("GET", "/v2/meta/version") as response:
            between = (asked + time.time()) / 2
            self.found["ahead_s"] = ahead(response.headers.get("date"), between)
            return understood(Version, await response.read())

    async def _nodes(self) -> None:
        nodes = await limited(partial(answer, self.queen, "/v2/nodes", NodeList))
        self.found["nodes"] = nodes
        if isinstance(nodes, NodeList):
            async with trio.open_nursery() as nursery:
                for node in nodes.nodes:
                    nursery.start_soon(self._reachability, node.node_id)

    async def _reachability(self, node_id: str) -> None:
        path = below("/v2/nodes", node_id, "reachability")
        async with self.limiter:
            self.reachability[node_id] = await limited(partial(answer, self.queen, path, NodeReachability))

    async def _local(self) -> None:
        self.found["local"] = await local(self.queen, os.environ)


async def gathered(queen: Queen) -> Facts:
    """Everything that can be found out now."""
    gathering = _Gathering(queen)
    await gathering.all()
    found = gathering.found
    return Facts(queen.url, token=token_words(queen.token), reachability=gathering.reachability, **found)  # type: ignore[arg-type]


async def limited(ask: Callable[[], Awaitable[M]]) -> M | Failure:
    """What `ask` finds within LIMIT_S seconds, or why it does not."""
    try:
        with trio.fail_after(LIMIT_S):
            return await ask()
    except trio.TooSlowError:
        return Failure(f"there is no answer within {LIMIT_S:g} s", "", ExitStatus.UNAVAILABLE)
    except UpstreamError as error:
        return Failure(f"there is no answer: {error}", "", ExitStatus.UNAVAILABLE)
    except Failure as failure:
        return failure


async def answer(queen: Queen, path: str, model: type[M]) -> M:
    """One answer; that a daemon is not ready is one. Raises Failure and UpstreamError."""
    async with queen.ask("GET", path, allowed=(503,) if path == "/ready" else ()) as response:
        return understood(model, await response.read(64 << 20))


def ahead(date: str | None, now: float) -> float | None:
    """How far the clock is ahead of `now` that wrote the header Date, which is cut off to whole seconds."""
    try:
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except ValueError:
        return None


async def local(queen: Queen, environ: Mapping[str, str]) -> Local | None:
    """pool-managerd where it listens on this machine; None where there is no sign of it."""
    expected = any(environ.get(name) for name in (BIND_VARIABLE, NODE_ID_VARIABLE))
    url = local_url(environ.get(BIND_VARIABLE), secure=bool(environ.get(CERT_FILE)))
    ready = await limited(partial(answer, replace(queen, url=url), "/ready", Readiness))
    if isinstance(ready, Failure) and not expected:
        return None
    return Local(url, expected, ready, environ.get(NODE_ID_VARIABLE) or None)


def local_url(bind: str | None, *, secure: bool = False) -> str:
    """Where a pool-managerd that listens on `bind` answers on its own machine."""
    try:
        found = parse_address(bind) if bind else NODE_HOST
    except ValueError:
        found = NODE_HOST
    return f"{'https' if secure else 'http'}://{Host(UNSPECIFIED.get(found.host, found.host), found.port)}"


def token_words(token: str | None) -> str | None:
    """Which token it is and where it comes from; never the token."""
    if token is None:
        return None
    source = TOKEN.source(os.environ)
    named = {"environment": TOKEN.variable, "file": f"{TOKEN.file}={os.environ.get(TOKEN.file)}"}
    return f"{Secret(token)} from {named.get(source, source)}"
