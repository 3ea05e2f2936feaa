"""Delay of the first token that queen-rbee adds to a real engine, with 4 clients.

Each client is a process with a plain socket, so that the client adds little. Requests to the engine and to queen-rbee
alternate in one run, so that noise affects both equally.
"""

import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from pathlib import Path

from tests.engines.llama_server import llama_server_archive
from tests.engines.tiny_model import SLOW, TINY, tiny_model
from tests.integration.home import Home, home

CLIENTS = 4
TOKENS = 16
LIMIT_MS = 5.0
ENGINES = (
    ("engine of 250 tokens/s", SLOW, 40),
    ("engine of 6000 tokens/s", TINY, 100),
)
FLAGS = ("--threads", "1", "--threads-http", "4")
"""One core for the engine, as with a GPU: its threads spin while they wait for each other, and on two cores would
leave none for queen-rbee."""


class Connection:
    """A minimal HTTP/1.1 connection. Responses are read up to a given mark."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, method: str, path: str, body: object = None) -> None:
        """Send a request."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        self._socket.sendall(head.encode() + data)

    def until(self, mark: bytes, seen: bytes = b"") -> bytes:
        """Read until `mark` has arrived. Return all data, including the earlier data `seen`."""
        while mark not in seen:
            chunk = self._socket.recv(65536)
            assert chunk, seen
            seen += chunk
        return seen

    def close(self) -> None:
        self._socket.close()


def through_engine(port: int) -> float:
    """Return the milliseconds from a request to the engine to its first token."""
    begun = time.perf_counter()
    connection = Connection(port)
    connection.send("POST", "/completion", {"prompt": "hello world", "n_predict": TOKENS, "stream": True})
    seen = connection.until(b"data: ")
    first = time.perf_counter()
    connection.until(b'"stop":true', seen)
    connection.close()
    return 1000 * (first - begun)


def through_queen(port: int) -> float:
    """Return the milliseconds from the submission of a task to its first token."""
    begun = time.perf_counter()
    connection = Connection(port)
    connection.send("POST", "/v2/tasks", {"prompt": "hello world", "max_tokens": TOKENS})
    accepted = json.loads(connection.until(b'"preparation":{"steps":[]}}').partition(b"\r\n\r\n")[2])
    connection.send("GET", accepted["streams"]["sse"])
    seen = connection.until(b"event: token")
    first = time.perf_counter()
    connection.until(b"event: end", seen)
    connection.close()
    return 1000 * (first - begun)


def client(ports_and_rounds: tuple[int, int, int]) -> list[tuple[float, float]]:
    """Measure engine and queen-rbee alternately."""
    engine_port, queen_port, rounds = ports_and_rounds
    return [(through_engine(engine_port), through_queen(queen_port)) for _ in range(rounds)]


def measure(running: Home, clients: int, rounds: int) -> tuple[list[float], list[float]]:
    """Measure with `clients` concurrent clients. Return the times of the engine and of queen-rbee."""
    engine_port = int(running.pool()["replicas"][0]["url"].rpartition(":")[2])
    work = [(engine_port, running.queen_port, rounds)] * clients
    with multiprocessing.Pool(clients) as pool:
        pairs = [pair for found in pool.map(client, work) for pair in found]
    return [engine for engine, _ in pairs], [queen for _, queen in pairs]


def main() -> None:
    """Print the medians and their difference, for a slow engine and for one that is faster than queen-rbee."""
    for name, shape, rounds in ENGINES:
        with (
            tempfile.TemporaryDirectory() as directory,
            home(Path(directory), llama_server_archive(), tiny_model(shape), slots=CLIENTS, flags=FLAGS) as running,
        ):
            for clients in (1, CLIENTS):
                engine, queen = map(statistics.median, measure(running, clients, rounds))
                print(
                    f"first token, {name}, {clients} clients: engine {engine:.2f} ms, queen-rbee {queen:.2f} ms", end=""
                )
                print(f"; difference {queen - engine:.2f} ms (limit {LIMIT_MS:g} ms)")


if __name__ == "__main__":
    main()
