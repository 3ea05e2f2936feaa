"""Route of the stream that shows the state of the queen as it changes."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import trio

from llama_orch import VERSION
from llama_orch.contracts.live import LiveHello
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.routes import Deferred, Reply, Route, gate_route
from queen_rbee.api.parameters import EVENT_STREAM
from queen_rbee.api.streaming import KEEP_ALIVE, KEEP_ALIVE_S, STREAM_HEADERS, cancel_when_gone
from queen_rbee.live.board import Change, Seen
from queen_rbee.live.live import Live

IGNORED_BODY_LIMIT = 64 << 10
BATCH = 500
"""Documents in one event: about half a megabyte of pools."""
STREAM = Reply("The stream.", {EVENT_STREAM: Deferred("queen_rbee.api.openapi.schemas", "LIVE_EVENTS")})


class LiveRoutes:
    """`routes` are those of the daemon; the first event of a stream names the actions among them."""

    def __init__(self, live: Live, profile: str, routes: Sequence[Route]) -> None:
        self._live = live
        self._profile = profile
        self._routes = routes

    @gate_route(
        "GET",
        "/v2/events",
        "Stream the state of the queen",
        {200: STREAM},
        errors=(503,),
        description="The event `hello`, each section as a whole, `ready`, then changes, at most four times a second. "
        "A reader that reads slowly misses intermediate states, not the last one. The stream has no ids and cannot be "
        "resumed: a new one begins anew. Comments keep the connection alive.",
    )
    async def read_live(self, exchange: Exchange) -> None:
        await exchange.body(IGNORED_BODY_LIMIT)
        with self._live.viewer() as seen:
            await exchange.open_stream(200, STREAM_HEADERS)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_gone, exchange, nursery.cancel_scope)
                nursery.start_soon(self._live.follow_gpus)
                await self._send(exchange, seen)
                nursery.cancel_scope.cancel()

    async def _send(self, exchange: Exchange, seen: Seen) -> None:
        await exchange.write(_frame("hello", self._hello().model_dump_json()))
        keep_alive_at, ready = trio.current_time() + KEEP_ALIVE_S, False
        while not self._live.closed:
            await self._live.refresh()
            for change in self._live.board.changes(seen):
                for frame in _frames(change):
                    await exchange.write(frame)
                keep_alive_at = trio.current_time() + KEEP_ALIVE_S
            if not ready and seen.sections:
                await exchange.write(_frame("ready", "{}"))
                ready = True
            if trio.current_time() >= keep_alive_at:
                await exchange.write(KEEP_ALIVE)
                keep_alive_at = trio.current_time() + KEEP_ALIVE_S
            await trio.sleep(self._live.interval_s)
        await exchange.finish()

    def _hello(self) -> LiveHello:
        return LiveHello(
            at=datetime.now(UTC),
            version=VERSION,
            profile=self._profile,
            pool_actions=[*_actions(self._routes, "/v2/pools/{pool_id}/")],
            node_actions=[*_actions(self._routes, "/v2/nodes/{node_id}/")],
        )


def _actions(routes: Sequence[Route], prefix: str) -> Iterator[str]:
    """Yield the last words of the paths below `prefix` that take a POST of operators; the gate serves daemons."""
    for declared in routes:
        if declared.method == "POST" and declared.path.startswith(prefix) and not declared.by_gate:
            yield declared.path.removeprefix(prefix)


def _frames(change: Change) -> Iterator[bytes]:
    """Yield the events of a change: one, or several if there are many documents."""
    keys = [*change.documents]
    for start in range(0, max(1, len(keys)), BATCH):
        documents = ",".join(f"{json.dumps(key)}:{change.documents[key]}" for key in keys[start : start + BATCH])
        gone = json.dumps(change.gone if start == 0 else ())
        yield _frame(change.section, f'{{"set":{{{documents}}},"gone":{gone}}}')


def _frame(event: str, data: str) -> bytes:
    return f"event: {event}\ndata: {data}\n\n".encode()
