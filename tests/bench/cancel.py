"""How soon the engine's slot is free after a cancel, after a client has left, and after Ctrl-C in orchctl: the engine
itself is asked. Its own client's leaving is measured in the same run, since that is the least it can be."""

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

Way = Callable[[Home, int], float]


def is_busy(engine_port: int) -> bool:
    """Whether the engine says that a slot is at work."""
    connection = Connection(engine_port)
    connection.send("GET", "/slots")
    busy = b'"is_processing":true' in connection.until(b"}]")
    connection.close()
    return busy


def until_free(engine_port: int, begun: float) -> float:
    """Milliseconds since `begun` until no slot is at work."""
    while is_busy(engine_port):
        pass
    return 1000 * (time.perf_counter() - begun)


def by_cancel(running: Home, engine_port: int) -> float:
    """POST …/cancel in the middle of the answer."""
    _status, accepted = running.ask("POST", "/v2/tasks", TASK)
    with running.stream(accepted["streams"]["sse"]) as stream:
        next(event for event in stream if event[1] == "token")
        begun = time.perf_counter()
        running.ask("POST", f"/v2/tasks/{accepted['task_id']}/cancel")
        return until_free(engine_port, begun)


def by_leaving_the_engine(_running: Home, engine_port: int) -> float:
    """The same without the queen: a client of the engine hangs up in the middle of its stream."""
    return left(Connection(engine_port), "/v1/chat/completions", {**CHAT, "stream": True}, engine_port)


def left(connection: Connection, path: str, body: Mapping[str, object], engine_port: int) -> float:
    """Ask, and leave once the answer is under way."""
    connection.send("POST", path, body)
    if body["stream"]:
        connection.until(b"delta")
    while not is_busy(engine_port):
        pass
    begun = time.perf_counter()
    connection.close()
    return until_free(engine_port, begun)


def by_interrupt(running: Home, engine_port: int) -> float:
    """Ctrl-C in the middle of the answer."""
    words = [sys.executable, "-m", "orchctl", "submit", "--url", running.url, *("--max-tokens", str(TOKENS)), "hello"]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, env=running.environ)
    assert client.stdout is not None
    os.read(client.stdout.fileno(), 1)
    begun = time.perf_counter()
    client.send_signal(signal.SIGINT)
    free = until_free(engine_port, begun)
    client.communicate()
    return free


def leaving(path: str, *, stream: bool) -> Way:
    """A client of /v1 hangs up, in the middle of its stream, or while it waits for the whole answer."""

    def way(running: Home, engine_port: int) -> float:
        return left(Connection(running.queen_port), path, {**CHAT, "stream": stream}, engine_port)

    return way


WAYS: Mapping[str, Way] = {
    "leaving the engine itself": by_leaving_the_engine,
    "cancel": by_cancel,
    "leaving a stream of /v1/chat/completions": leaving("/v1/chat/completions", stream=True),
    "leaving /v1/chat/completions without a stream": leaving("/v1/chat/completions", stream=False),
    "leaving a stream of /v1/messages": leaving("/v1/messages", stream=True),
    "Ctrl-C in orchctl": by_interrupt,
}


def main() -> None:
    """Print median and longest of each way, with the engine beside the queen, and behind a node's relay."""
    for words, node_id in (("", None), ("through a node's relay, ", "gpu-node-1")):
        with (
            tempfile.TemporaryDirectory() as directory,
            home(Path(directory), llama_server_archive(), tiny_model(SLOW), flags=FLAGS, node_id=node_id) as running,
        ):
            measure(words, running)


def measure(words: str, running: Home) -> None:
    """All ways, over one home."""
    engine_port = int(running.until(lambda: engine_url(running)).rpartition(":")[2])
    for name, way in WAYS.items():
        times = [way(running, engine_port) for _ in range(ROUNDS)]
        middle, longest = statistics.median(times), max(times)
        print(f"{words}{name}: slot free after {middle:.1f} ms (median), {longest:.1f} ms (longest)", end="")
        print(f"; wanted: at most {LIMIT_MS:g} ms")


def engine_url(running: Home) -> str | None:
    """Where the engine is, once pool-managerd knows; the queen may know of it before, from the handoff file."""
    _status, found = running.ask("GET", "/v2/pools", port=running.manager_port)
    urls = [str(replica["url"]) for pool in found["pools"] for replica in pool["replicas"]]
    return urls[0] if urls else None


if __name__ == "__main__":
    main()
