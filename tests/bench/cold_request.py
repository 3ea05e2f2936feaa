"""Time to the first token of a model that is not loaded, against starting its engine by hand.

Engine and model are on disk. By hand: start llama-server with the arguments that engine-provisioner uses, ask for its
health every 5 ms, then send the same request to it. Both take turns in one run, so that noise affects both equally.
On a machine that does other work too, the CPU time of the daemons tells more than the difference.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

from tests.bench.figures import cost
from tests.engines.llama_server import llama_server_archive
from tests.engines.tiny_model import SLOW, TINY, Shape, tiny_model
from tests.integration.home import Home, environment, free_port, share_unpacked, stop_if_running

ROUNDS = 7
LIMIT_S = 0.3
POLL_S = 0.005
POOL = """
[[pools]]
id = "cold"
model = "file:{model}"
ctx = 1024
slots = 2
ports = [{port}]
preload = false
keep_alive = -1
flags = ["--threads", "1"]
[pools.provisioning]
mode = "binary"
url = "file:{archive}"
checksum = "{checksum}"
allow_binary_downloads = true
"""
BODY = {"model": "cold", "stream": True, "max_tokens": 4, "messages": [{"role": "user", "content": "the river"}]}


def first_token_s(port: int, begun: float) -> float:
    """Ask for a stream on `port`; return the seconds from `begun` to its first chunk."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(BODY), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    while not answer.readline().startswith(b"data: "):
        pass
    took_s = time.monotonic() - begun
    answer.read()
    connection.close()
    return took_s


def healthy(port: int) -> bool:
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def by_hand(argv: list[str], port: int) -> float:
    """Start the engine, wait for its health and ask; return the seconds to the first chunk. Stops the engine."""
    begun = time.monotonic()
    engine = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not healthy(port):
            assert engine.poll() is None
            time.sleep(POLL_S)
        return first_token_s(port, begun)
    finally:
        engine.terminate()
        engine.wait()


def engine_argv(port: int) -> list[str]:
    """Return the command line by which the engine that listens on `port` was started: the script before its linker."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")[:-1]
        except OSError:
            continue
        if "--port" in words and words[words.index("--port") + 1] == str(port):
            server = next(place for place, word in enumerate(words) if word.endswith("/libexec/server"))
            return [str(Path(words[server]).parents[1] / "bin/llama-server"), *words[server + 1 :]]
    raise AssertionError(f"no engine on port {port}")


def unload(home: Home) -> None:
    home.ask("POST", "/v2/pools/cold/unload")
    until_state(home, "unloaded")


def until_state(home: Home, state: str) -> None:
    home.until(lambda: [pool["state"] for pool in (home.ask("GET", "/v2/pools")[1] or {}).get("pools", ())] == [state])


def daemons_cpu_s(home: Home) -> float:
    return sum(cost(process.pid).cpu_s for process in home.processes.values())


def measure(directory: Path, shape: Shape) -> tuple[list[float], list[float], list[float]]:
    """Return the times of cold requests and of engines started by hand, and the CPU times of the daemons."""
    archive, port = llama_server_archive(), free_port()
    fields = {"model": tiny_model(shape), "archive": archive.path, "checksum": archive.checksum, "port": port}
    (directory / "pools.toml").write_text(POOL.format(**fields))
    share_unpacked(archive, directory / "cache")
    environ = environment(directory)
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    home = Home(directory, environ, queen, manager)
    cold, hand, cpu = [], [], []
    with ExitStack() as cleanup:
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            home.start(name)
            cleanup.callback(stop_if_running, home, name)
        until_state(home, "unloaded")
        first_token_s(queen, time.monotonic())
        argv = engine_argv(port)
        for _ in range(ROUNDS):
            unload(home)
            time.sleep(0.5)
            hand.append(by_hand(argv, port))
            before = daemons_cpu_s(home)
            cold.append(first_token_s(queen, time.monotonic()))
            cpu.append(daemons_cpu_s(home) - before)
        unload(home)
    return cold, hand, cpu


def main() -> None:
    """Print the medians and their difference, for two sizes of models."""
    for name, shape in (("0.8 MB", TINY), ("112 MB", SLOW)):
        with tempfile.TemporaryDirectory() as directory:
            cold, hand, cpu = measure(Path(directory), shape)
        added_s = statistics.median(cold) - statistics.median(hand)
        print(
            f"cold request, model of {name}: {statistics.median(cold):.3f} s, by hand {statistics.median(hand):.3f} s,"
            f" added {added_s:.3f} s (limit {LIMIT_S:g} s); ranges {min(cold):.2f}-{max(cold):.2f} s and"
            f" {min(hand):.2f}-{max(hand):.2f} s; CPU of the daemons {statistics.median(cpu):.2f} s;"
            f" load average {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
