"""Stopping a daemon loses no request: it answers accepted connections and leaves others to the next daemon."""

import http.client
import socket
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import trio
from prometheus_client import CollectorRegistry

from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.serving import serve

RESTARTS = 15
CLIENTS = 3


async def pong(exchange: Exchange) -> None:
    await exchange.send(200, b"pong")


def daemon_app() -> Gate:
    hot = HotRoutes()
    hot.add("GET", "/hot", pong)
    return Gate(create_app("daemon", list, CollectorRegistry()), Access(), hot)


class Clients:
    """Threads that send requests, each on a new connection, until `finish` is called."""

    def __init__(self, port: int, path: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port, self._path = port, path
        self._finish = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _client in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Send no more requests."""
        self._finish.set()

    def finished(self) -> bool:
        """Return whether every request has an outcome."""
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while not self._finish.is_set():
            self.outcomes[self._ask()] += 1

    def _ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", self._path)
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()


async def serve_until(condition: Callable[[], bool], listening: socket.socket) -> None:
    """Run the daemon on the listening socket until `condition` holds. The socket stays open."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, daemon_app(), [listening.dup()], shutdown=stop, drain_s=10))
        with trio.fail_after(30):
            while not condition():  # noqa: ASYNC110 -- the condition changes in threads
                await trio.sleep(0.001)
        stop.set()


@pytest.mark.parametrize("path", ["/health", "/hot"])
async def test_stop_loses_no_request(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        clients = Clients(listening.getsockname()[1], path)
        for restart in range(1, RESTARTS + 1):
            await serve_until(lambda goal=restart * 10: clients.outcomes.total() >= goal, listening)  # type: ignore[misc]
        clients.finish()
        await serve_until(clients.finished, listening)
    assert set(clients.outcomes) == {"200"}, clients.outcomes
