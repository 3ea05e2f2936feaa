"""The relay: forwards a request to an engine and streams its answer back, holding a lease meanwhile.

Nothing is buffered or completed: when the client disconnects, the connection to the engine is closed, and when the
engine breaks off, the client gets a visibly incomplete answer.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.nodes import RELAY_HEADER
from llama_orch.engines.relay_paths import relay_purpose
from llama_orch.http.client.client import (
    IdleConnections,
    Response,
    Unreachable,
    UpstreamError,
    UpstreamTimeout,
    request,
)
from llama_orch.http.server.exchange import BrokenOff, Exchange
from llama_orch.telemetry import correlation
from llama_orch.telemetry.events.pools import REQUEST_RELAYED
from llama_orch.telemetry.records import emit
from llama_orch.telemetry.tracing.spans import Attributes, outgoing, step
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import Replica
from pool_managerd.relay.affinity import Affinity
from pool_managerd.relay.rules import (
    BROKEN,
    REFUSED,
    Allow,
    admit,
    answer_headers,
    choose,
    engine_target,
    request_headers,
    session_of,
)

CONNECT_S = 5.0
REENCODING_MARGIN = 8 << 20
"""Bytes by which the queen's body may exceed the client's: it re-encodes JSON, and 1e9 becomes 1000000000.0."""


class Relay:
    """Relays to the node's engines. `head_s` bounds the wait for an answer's head, which clients usually bound too.

    Without `connections`, each request has a connection of its own.
    """

    def __init__(
        self,
        node_pools: NodePools,
        connections: IdleConnections | None = None,
        head_s: float = math.inf,
        allows: Allow = relay_purpose,
    ) -> None:
        self._allows = allows
        self._node_pools = node_pools
        self._affinity = Affinity()
        self._head_s = head_s
        self._connections = connections

    async def __call__(self, exchange: Exchange) -> None:
        """Answer a request for a path of an engine. The relay marks its own errors with a header."""
        try:
            await self._relay(exchange)
        except ApiError as error:
            if any(name == RELAY_HEADER for name, _value in error.headers):
                raise
            raise ApiError(error.status, error.body, (*error.headers, REFUSED)) from error

    async def _relay(self, exchange: Exchange) -> None:
        target = engine_target(exchange.target)
        pool_id, node_pools = exchange.variables["pool_id"], self._node_pools
        may = admit(pool_id, node_pools.replicas, self._allows, exchange.method, target)
        body_sent = await self._body(exchange)
        last = self._affinity.last(pool_id, session_of(exchange.headers), trio.current_time())
        pool = node_pools.pool_without_leases(pool_id)
        replica = choose(pool_id, pool, node_pools.replicas, node_pools.leases.of, last, may)
        failure, gone = None, False
        with node_pools.leases.held(replica.key, partial(_abort, exchange)) as lease:

            async def pass_on() -> None:
                nonlocal failure
                failure = await self._pass_on(exchange, replica, target, body_sent)

            def left() -> None:
                nonlocal gone
                gone = True
                lease.cancel()

            await exchange.accompany(pass_on, left)
        if gone:
            return
        if lease.cancelled_caught:
            failure = incomplete(502, pool_id, "the drain deadline of the pool has passed")
        if failure and exchange.started:
            raise BrokenOff from failure
        if failure:
            raise failure

    async def _body(self, exchange: Exchange) -> bytearray:
        return await exchange.body(exchange.body_limit + REENCODING_MARGIN)

    async def _pass_on(self, exchange: Exchange, replica: Replica, target: str, body: bytearray) -> ApiError | None:
        """Forward the request and stream the answer. Returns why the answer is incomplete, if it is."""
        url, pool_id = replica.handoff.url + target, replica.handoff.pool_id
        emit(REQUEST_RELAYED, pool_id=pool_id, replica_id=replica.handoff.replica_id, url=replica.handoff.url)
        try:
            with step(exchange.method, _span_attributes(exchange, replica), kind="client") as span:
                trace = outgoing(span, _passed_on())
                headers = request_headers(exchange.headers, correlation.current.get(), trace)
                asking = request(
                    exchange.method,
                    url,
                    headers=headers,
                    body=body,
                    connections=self._connections,
                    connect_s=CONNECT_S,
                    head_s=self._head_s,
                )
                async with asking as response:
                    if span:
                        span.set_attribute("http.response.status_code", response.status)
                    with self._serving(exchange, replica, response):
                        await _answer(exchange, response)
        except Unreachable as error:
            return not_received(502, pool_id, str(error))
        except UpstreamTimeout as error:
            return incomplete(504, pool_id, str(error))
        except UpstreamError as error:
            return incomplete(502, pool_id, str(error))
        return None

    @contextmanager
    def _serving(self, exchange: Exchange, replica: Replica, response: Response) -> Iterator[None]:
        """Record the session's engine when the answer begins and when it ends, however it ends."""
        session = session_of(exchange.headers) if response.status == 200 else None
        turn = replica.handoff.pool_id, session, replica.incarnation
        self._affinity.served(*turn, trio.current_time())
        try:
            yield
        finally:
            self._affinity.served(*turn, trio.current_time())


def _abort(exchange: Exchange) -> None:
    """Abort a started answer: sends to a client that does not read are shielded from cancellation for a while."""
    if exchange.started:
        exchange.abort()


def _passed_on() -> dict[str, str]:
    """Return the caller's trace as a header, if it has one."""
    trace = correlation.traceparent.get()
    return {"traceparent": trace} if trace else {}


def _span_attributes(exchange: Exchange, replica: Replica) -> Attributes:
    engine = urlsplit(replica.handoff.url)
    return {
        "http.request.method": exchange.method,
        "server.address": engine.hostname or "",
        "server.port": engine.port or 80,
        "llama_orch.pool.id": replica.handoff.pool_id,
        "llama_orch.replica.id": replica.handoff.replica_id,
    }


async def _answer(exchange: Exchange, response: Response) -> None:
    await exchange.open_stream(response.status, answer_headers(response.status, response.headers))
    if exchange.method == "HEAD":
        await exchange.finish()
        return
    if "content-length" not in response.headers and not response.arrived:
        await exchange.write(b"")  # sends the head of a stream without waiting for its first chunk
    async for chunk in response.chunks():
        if response.complete:
            await exchange.finish(chunk)
            return
        if not exchange.write_now(chunk):
            await exchange.write(b"" if exchange.writes_now else chunk)
    await exchange.finish()


def not_received(status: int, pool_id: str, message: str) -> ApiError:
    """The error for an engine that has not received the request."""
    body = ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message=message, retriable=True, pool_id=pool_id)
    return ApiError(status, body, (REFUSED,))


def incomplete(status: int, pool_id: str, message: str) -> ApiError:
    """The error for an engine that has received the request but did not answer completely."""
    body = ErrorBody(code=ErrorCode.WORKER_RESET, message=message, retriable=True, pool_id=pool_id)
    return ApiError(status, body, (BROKEN,))
