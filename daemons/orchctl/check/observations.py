"""The data that `orchctl check` judges: all queries run side by side, each within a limit.

A query that fails is an observation, too: the CommandError that says why.
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
from orchctl.check.certificates import Certificate, own_certificates, presented_certificate
from orchctl.check.local_node import LocalNode, Nodes, find_local_node
from orchctl.check.queries import NOT_QUERIED, fetch, query
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.errors import CommandError
from orchctl.nurseries import unwrap_groups

MAX_REACHABILITY_QUERIES = 32
"""Reachability queries at a time; for each, the queen connects to a node."""


@dataclass(frozen=True)
class Observations:
    """The results of all queries.

    `token` describes the token that was sent and its source, without the token itself; `token_optional` if the queen
    also answers without one. `clock_ahead_s` is how far the queen's clock is ahead of this machine's. `reachability` is
    the queen's view of each node, by node id. `now` is this machine's time.
    """

    url: str
    own_version: str = VERSION
    token: str | None = None
    token_optional: bool = False
    clock_ahead_s: float | None = None
    version: Version | CommandError = NOT_QUERIED
    ready: Readiness | CommandError = NOT_QUERIED
    pools: PoolList | CommandError = NOT_QUERIED
    nodes: NodeList | CommandError = NOT_QUERIED
    reachability: Mapping[str, NodeReachability | CommandError] = field(default_factory=dict)
    local: LocalNode | None = None
    certificates: Sequence[Certificate] = ()
    now: datetime = field(default_factory=wall_clock)


@dataclass
class _Observer:
    """Collects the results of the queries, each of which runs in its own task."""

    queen: QueenClient
    results: dict[str, object] = field(default_factory=dict)
    nodes: Nodes = NOT_QUERIED
    reachability: dict[str, NodeReachability | CommandError] = field(default_factory=dict)
    presented: dict[str, Certificate] = field(default_factory=dict)
    nodes_known: trio.Event = field(default_factory=trio.Event)
    limiter: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, MAX_REACHABILITY_QUERIES))

    async def run(self) -> None:
        with unwrap_groups():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._query, "ready", Readiness, "/ready")
                nursery.start_soon(self._query, "pools", PoolList, "/v2/pools")
                nursery.start_soon(self._query_version)
                if self.queen.token:
                    nursery.start_soon(self._query_without_token)
                nursery.start_soon(self._get_certificate, self.queen.url, "queen-rbee")
                nursery.start_soon(self._query_nodes)
                nursery.start_soon(self._query_local_node)

    async def _query(self, name: str, model: type[BaseModel], path: str) -> None:
        self.results[name] = await query(partial(fetch, self.queen, path, model))

    async def _query_version(self) -> None:
        self.results["version"] = await query(self._fetch_version_and_clock, self.queen.url)

    async def _query_without_token(self) -> None:
        """Find out whether the queen requires a token: a client that needs none gets an answer with any token."""
        without_token = replace(self.queen, token=None)
        path = build_path("/v2/sessions", limit=1)
        result = await query(partial(fetch, without_token, path, SessionList))
        self.results["token_optional"] = not isinstance(result, CommandError)

    async def _fetch_version_and_clock(self) -> Version:
        sent = time.time()
        async with self.queen.request("GET", "/v2/meta/version") as response:
            midpoint = (sent + time.time()) / 2
            self.results["clock_ahead_s"] = clock_ahead(response.headers.get("date"), midpoint)
            return parse_response(Version, await response.read())

    async def _query_nodes(self) -> None:
        nodes = self.nodes = await query(partial(fetch, self.queen, "/v2/nodes", NodeList))
        self.nodes_known.set()
        if isinstance(nodes, NodeList):
            async with trio.open_nursery() as nursery:
                for node in nodes.nodes:
                    nursery.start_soon(self._query_reachability, node.node_id)

    async def _query_reachability(self, node_id: str) -> None:
        path = build_path("/v2/nodes", node_id, "reachability")
        async with self.limiter:
            self.reachability[node_id] = await query(partial(fetch, self.queen, path, NodeReachability))

    async def _query_local_node(self) -> None:
        local = self.results["local"] = await find_local_node(self.queen, os.environ, self._wait_for_nodes)
        await self._get_certificate(local.url, "pool-managerd")

    async def _wait_for_nodes(self) -> Nodes:
        await self.nodes_known.wait()
        return self.nodes

    async def _get_certificate(self, url: str, daemon: str) -> None:
        if certificate := await presented_certificate(url, daemon):
            self.presented[daemon] = certificate

    @property
    def certificates(self) -> list[Certificate]:
        """The queen's certificate, pool-managerd's, then those in files."""
        return [*(self.presented[daemon] for daemon in sorted(self.presented, reverse=True)), *own_certificates()]


async def observe(queen: QueenClient) -> Observations:
    observer = _Observer(queen)
    await observer.run()
    results = observer.results
    results |= {
        "nodes": observer.nodes,
        "reachability": observer.reachability,
        "certificates": observer.certificates,
    }
    return Observations(queen.url, token=describe_token(queen.token), **results)  # type: ignore[arg-type]


def clock_ahead(date: str | None, now: float) -> float | None:
    """Return how far the clock that wrote the header Date, which is truncated to seconds, is ahead of `now`."""
    try:
        return parsedate_to_datetime(date or "").timestamp() + 0.5 - now
    except ValueError:
        return None


def describe_token(token: str | None) -> str | None:
    """Return the token's fingerprint and source."""
    if token is None:
        return None
    source = TOKEN.source(os.environ)
    names = {"environment": TOKEN.variable, "file": f"{TOKEN.file}={os.environ.get(TOKEN.file)}"}
    return f"{Secret(token)} from {names.get(source, source)}"
