"""How soon the engine's slot is free after a cancel, and after Ctrl-C in orchctl: the engine itself is asked."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.first_token import FLAGS, Connection
from tests.engines.llama_server import llama_server_archive
from tests.engines.tiny_model import SLOW, tiny_model
from tests.integration.home import Home, home

ROUNDS = 20
LIMIT_MS = 100.0
TASK = {"prompt": "hello", "max_tokens": 900}


def until_free(engine_port: int, begun: float) -> float:
    """Milliseconds since `begun` until the engine says that no slot is at work."""
    while True:
        connection = Connection(engine_port)
        connection.send("GET", "/slots")
        busy = b'"is_processing":true' in connection.until(b"}]")
        connection.close()
        if not busy:
            return 1000 * (time.perf_counter() - begun)


def by_cancel(running: Home, engine_port: int) -> float:
    """POST …/cancel in the middle of the answer."""
    _status, accepted = running.ask("POST", "/v2/tasks", TASK)
    with running.stream(accepted["streams"]["sse"]) as stream:
        next(event for event in stream if event[1] == "token")
        begun = time.perf_counter()
        running.ask("POST", f"/v2/tasks/{accepted['task_id']}/cancel")
        return until_free(engine_port, begun)


def by_interrupt(running: Home, engine_port: int) -> float:
    """Ctrl-C in the middle of the answer."""
    words = [sys.executable, "-m", "orchctl", "submit", "--url", running.url, *("--max-tokens", "900"), "hello"]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, env=running.environ)
    assert client.stdout is not None
    os.read(client.stdout.fileno(), 1)
    begun = time.perf_counter()
    client.send_signal(signal.SIGINT)
    free = until_free(engine_port, begun)
    client.communicate()
    return free


def main() -> None:
    """Print median and longest of both."""
    with (
        tempfile.TemporaryDirectory() as directory,
        home(Path(directory), llama_server_archive(), tiny_model(SLOW), flags=FLAGS) as running,
    ):
        engine_port = int(running.pool()["replicas"][0]["url"].rpartition(":")[2])
        for name, way in (("cancel", by_cancel), ("Ctrl-C in orchctl", by_interrupt)):
            times = [way(running, engine_port) for _ in range(ROUNDS)]
            middle, longest = statistics.median(times), max(times)
            print(f"{name}: slot free after {middle:.1f} ms (median), {longest:.1f} ms (longest)", end="")
            print(f"; wanted: at most {LIMIT_MS:g} ms")


if __name__ == "__main__":
    main()
