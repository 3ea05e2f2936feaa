"""What traces cost queen-rbee: CPU of a streamed chat, and memory when idle, with and without a collector.

The queens run side by side on one core and get requests in turn, so that noise affects all equally. A stand-in for
llama-server and the collector have the other core.
"""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.figures import cores, on_core
from tests.bench.first_token import Connection
from tests.bench.queen import MODEL, Queen, pool, queen
from tests.bench.stand_in import stand_in_process
from tests.integration.home import free_port
from tests.services.collector import rotel

ROUNDS, REQUESTS, TOKENS, WARM_UP = 12, 50, 16, 50
IDLE_S = 3.0
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": TOKENS,
    "stream": True,
}


def chat(port: int, count: int) -> None:
    """Send `count` chats, one after the other, over one connection."""
    connection = Connection(port)
    for _request in range(count):
        connection.send("POST", "/v1/chat/completions", CHAT)
        connection.until(b"0\r\n\r\n")
    connection.close()


def cpu_ms(running: Queen) -> float:
    """Return the CPU time of a request, in milliseconds; the export of its spans counts, as far as it is done."""
    before = running.cost.cpu_s
    chat(running.port, REQUESTS)
    time.sleep(1.1)  # the spans of the last second are exported after it
    return 1000 * (running.cost.cpu_s - before) / REQUESTS


def main() -> None:
    """Print the costs without traces, with traces, with a dead collector, and with an unsampled trace."""
    _queen_core, other_core = cores()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with on_core(other_core):
            url = stack.enter_context(stand_in_process(0))
            collector = stack.enter_context(rotel(directory))
        endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
        variants: dict[str, dict[str, str]] = {
            "without": {},
            "traces over gRPC": {endpoint: collector.grpc_url},
            "traces over HTTP": {endpoint: collector.http_url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "dead collector": {endpoint: f"http://127.0.0.1:{free_port()}"},
            "none sampled": {endpoint: collector.grpc_url, "OTEL_TRACES_SAMPLER": "always_off"},
        }
        queens = {name: stack.enter_context(queen(pool(url, 4), **more)) for name, more in variants.items()}
        time.sleep(IDLE_S)
        idle = {name: running.cost.rss_mb for name, running in queens.items()}
        costs: dict[str, list[float]] = {name: [] for name in queens}
        with on_core(other_core):
            for running in queens.values():
                chat(running.port, WARM_UP)
            for _round in range(ROUNDS):
                for name, running in queens.items():
                    costs[name].append(cpu_ms(running))
        base = statistics.median(costs["without"])
        for name, running in queens.items():
            found = statistics.median(costs[name])
            print(f"traces, {name}: {found:.2f} ms of CPU per chat, {found / base:.2f} times that without; ", end="")
            print(f"idle {idle[name]:.1f} MB, after {WARM_UP + ROUNDS * REQUESTS} chats {running.cost.rss_mb:.1f} MB")


if __name__ == "__main__":
    main()
