"""The relay: passes a request on to an engine and its answer back as it comes, and holds a lease meanwhile.

Nothing is kept back and nothing is made up: a client that leaves closes the connection to the engine, and an engine
that breaks off leaves the client with an answer that is visibly incomplete.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import RELAY_HEADER
from llama_orch.engines.relay_paths import relay_purpose
from llama_orch.http.client.client import Response, Unreachable, UpstreamError, UpstreamTimeout, request
from llama_orch.http.server.exchange import BrokenOff, Exchange
from llama_orch.telemetry import correlation
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import Replica
from pool_managerd.relay.affinity import Affinity
from pool_managerd.relay.rules import (
    BROKEN,
    REFUSED,
    Allows,
    admit,
    answer_headers,
    choose,
    inside,
    request_headers,
    session_of,
)

CONNECT_S = 5.0
TRANSLATION_ROOM = 8 << 20
"""Bytes by which a body of the queen's may be longer than the client's own: 1e9 becomes 1000000000.0."""


class Relay:
    """Passes on to the engines of `registry`. The wait for an engine's head is the client's to bound; `head_s` can."""

    def __init__(self, registry: NodePools, head_s: float = math.inf, allows: Allows = relay_purpose) -> None:
        self._allows = allows
        self._registry = registry
        self._affinity = Affinity()
        self._head_s = head_s

    async def __call__(self, exchange: Exchange) -> None:
        """Answer a request for a path of an engine. What the relay itself refuses is marked so."""
        try:
            await self._relay(exchange)
        except ApiError as error:
            if any(name == RELAY_HEADER for name, _value in error.headers):
                raise
            raise ApiError(error.status, error.body, (*error.headers, REFUSED)) from error

    async def _relay(self, exchange: Exchange) -> None:
        target = inside(exchange.target)
        pool_id, registry = exchange.variables["pool_id"], self._registry
        may = admit(pool_id, registry.replicas, self._allows, exchange.method, target)
        body_sent = await self._body(exchange)
        last = self._affinity.last(pool_id, session_of(exchange.headers), trio.current_time())
        replica = choose(pool_id, registry.pool(pool_id), registry.replicas, registry.leases.of, last, may)
        with registry.leases.held(replica.key, partial(_cut, exchange)) as lease:
            failure = await self._attended(exchange, replica, target, body_sent)
        if lease.cancelled_caught:
            failure = broken(502, pool_id, "the pool was drained, and its deadline has passed")
        if failure and exchange.started:
            raise BrokenOff from failure
        if failure:
            raise failure

    async def _body(self, exchange: Exchange) -> bytearray:
        return await exchange.body(exchange.body_limit + TRANSLATION_ROOM)

    async def _attended(self, exchange: Exchange, replica: Replica, target: str, body: bytearray) -> ApiError | None:
        """Pass on for as long as the client is there."""
        failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leave_with, exchange, nursery.cancel_scope)
            failure = await self._pass_on(exchange, replica, target, body)
            nursery.cancel_scope.cancel()
        return failure

    async def _pass_on(self, exchange: Exchange, replica: Replica, target: str, body: bytearray) -> ApiError | None:
        """Ask and answer; what keeps the engine from answering completely, if something does."""
        headers = request_headers(exchange.headers, correlation.current.get(), correlation.traceparent.get())
        url, pool_id = replica.handoff.url + target, replica.handoff.pool_id
        asking = request(exchange.method, url, headers=headers, body=body, connect_s=CONNECT_S, head_s=self._head_s)
        try:
            async with asking as response:
                with self._serving(exchange, replica, response):
                    await _answer(exchange, response)
        except Unreachable as error:
            return refused(502, pool_id, str(error))
        except UpstreamTimeout as error:
            return broken(504, pool_id, str(error))
        except UpstreamError as error:
            return broken(502, pool_id, str(error))
        return None

    @contextmanager
    def _serving(self, exchange: Exchange, replica: Replica, response: Response) -> Iterator[None]:
        """The session is its engine's from the head of an answer on, and for a while after its end, however that
        comes."""
        session = session_of(exchange.headers) if response.status == 200 else None
        here = replica.handoff.pool_id, session, replica.incarnation
        self._affinity.served(*here, trio.current_time())
        try:
            yield
        finally:
            self._affinity.served(*here, trio.current_time())


def _cut(exchange: Exchange) -> None:
    """End an answer under way: a send is shielded for as long as a client that does not read is borne with."""
    if exchange.started:
        exchange.abort()


async def _leave_with(exchange: Exchange, scope: trio.CancelScope) -> None:
    await exchange.gone()
    scope.cancel()


async def _answer(exchange: Exchange, response: Response) -> None:
    await exchange.open_stream(response.status, answer_headers(response.status, response.headers))
    if "content-length" not in response.headers:
        await exchange.write(b"")  # the head of a stream does not wait for its first piece
    if exchange.method != "HEAD":
        async for chunk in response.chunks():
            await exchange.write(chunk)
    await exchange.finish()


def refused(status: int, pool_id: str, message: str) -> ApiError:
    """An engine that has heard nothing of the request."""
    body = ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, retriable=True, pool_id=pool_id)
    return ApiError(status, body, (REFUSED,))


def broken(status: int, pool_id: str, message: str) -> ApiError:
    """An engine that was asked, and has not answered."""
    body = ErrorBody(code=ErrorCode.WORKER_RESET, message=message, retriable=True, pool_id=pool_id)
    return ApiError(status, body, (BROKEN,))
