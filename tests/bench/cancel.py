"""Time until the engine's slot is free after a cancel, after a client disconnects, and after Ctrl-C in orchctl.

The engine is queried for its slots. The time after a direct client of the engine disconnects, measured in the same run,
is the minimum.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.first_token import FLAGS, Connection
from tests.engines.llama_server import llama_server_archive
from tests.engines.tiny_model import SLOW, tiny_model
from tests.integration.home import Home, home

ROUNDS = 20
LIMIT_MS = 100.0
TOKENS = 900
TASK = {"prompt": "hello", "max_tokens": TOKENS}
CHAT = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "max_tokens": TOKENS}

Measurement = Callable[[Home, int], float]


def is_busy(engine_port: int) -> bool:
    """Whether the engine reports a busy slot."""
    connection = Connection(engine_port)
    connection.send("GET", "/slots")
    busy = b'"is_processing":true' in connection.until(b"}]")
    connection.close()
    return busy


def until_free(engine_port: int, begun: float) -> float:
    """Return the milliseconds from `begun` until no slot is busy."""
    while is_busy(engine_port):
        pass
    return 1000 * (time.perf_counter() - begun)


def by_cancel(running: Home, engine_port: int) -> float:
    """Cancel a task during its answer."""
    _status, accepted = running.ask("POST", "/v2/tasks", TASK)
    with running.stream(accepted["streams"]["sse"]) as stream:
        next(event for event in stream if event[1] == "token")
        begun = time.perf_counter()
        running.ask("POST", f"/v2/tasks/{accepted['task_id']}/cancel")
        return until_free(engine_port, begun)


def by_disconnect_from_engine(_running: Home, engine_port: int) -> float:
    """Disconnect a direct client of the engine during its stream."""
    return disconnect(Connection(engine_port), "/v1/chat/completions", {**CHAT, "stream": True}, engine_port)


def disconnect(connection: Connection, path: str, body: Mapping[str, object], engine_port: int) -> float:
    """Send a request, and disconnect during the answer."""
    connection.send("POST", path, body)
    if body["stream"]:
        connection.until(b"delta")
    while not is_busy(engine_port):
        pass
    begun = time.perf_counter()
    connection.close()
    return until_free(engine_port, begun)


def by_interrupt(running: Home, engine_port: int) -> float:
    """Press Ctrl-C in orchctl during the answer."""
    words = [sys.executable, "-m", "orchctl", "submit", "--url", running.url, *("--max-tokens", str(TOKENS)), "hello"]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, env=running.environ)
    assert client.stdout is not None
    os.read(client.stdout.fileno(), 1)
    begun = time.perf_counter()
    client.send_signal(signal.SIGINT)
    free = until_free(engine_port, begun)
    client.communicate()
    return free


def by_disconnect(path: str, *, stream: bool) -> Measurement:
    """Disconnect a client of /v1 during its stream, or while it waits for the complete answer."""

    def way(running: Home, engine_port: int) -> float:
        return disconnect(Connection(running.queen_port), path, {**CHAT, "stream": stream}, engine_port)

    return way


MEASUREMENTS: Mapping[str, Measurement] = {
    "disconnect from the engine": by_disconnect_from_engine,
    "cancel": by_cancel,
    "disconnect from a stream of /v1/chat/completions": by_disconnect("/v1/chat/completions", stream=True),
    "disconnect from /v1/chat/completions without a stream": by_disconnect("/v1/chat/completions", stream=False),
    "disconnect from a stream of /v1/messages": by_disconnect("/v1/messages", stream=True),
    "Ctrl-C in orchctl": by_interrupt,
}


def main() -> None:
    """Run the benchmark with a local engine, and with an engine behind the relay of a node."""
    for words, node_id in (("", None), ("through the relay of a node, ", "gpu-node-1")):
        with (
            tempfile.TemporaryDirectory() as directory,
            home(Path(directory), llama_server_archive(), tiny_model(SLOW), flags=FLAGS, node_id=node_id) as running,
        ):
            measure(words, running)


def measure(words: str, running: Home) -> None:
    """Measure all ways to end a request, and print the results."""
    engine_port = int(running.until(lambda: engine_url(running)).rpartition(":")[2])
    for name, way in MEASUREMENTS.items():
        times = [way(running, engine_port) for _ in range(ROUNDS)]
        middle, longest = statistics.median(times), max(times)
        print(f"{words}{name}: slot free after {middle:.1f} ms (median), {longest:.1f} ms (max)", end="")
        print(f"; limit {LIMIT_MS:g} ms")


def engine_url(running: Home) -> str | None:
    """Return the URL of the engine from pool-managerd, which may learn it later than queen-rbee."""
    _status, found = running.ask("GET", "/v2/pools", port=running.manager_port)
    urls = [str(replica["url"]) for pool in found["pools"] for replica in pool["replicas"]]
    return urls[0] if urls else None


if __name__ == "__main__":
    main()
