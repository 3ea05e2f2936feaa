"""Twelve models on a GPU that holds three: 500 random requests of 8 clients, with all daemons and real engines.

The engines run on the CPU in the name of an imitated GPU, whose memory follows the engines that run. Counted are the
requests that are answered, loads against the fewest possible, engines that end during an answer, models that are
unloaded without having served, and the most engines at a time.
"""

import hashlib
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.bench.belady import fewest_loads
from tests.bench.figures import percentile
from tests.engines.llama_server import llama_server_directory
from tests.engines.tiny_model import tiny_model
from tests.gpus.imitation import ImitatedDriver, ImitatedGpu
from tests.integration.home import Home, environment, stop_if_running

POOLS, HELD, REQUESTS, CLIENTS = 12, 3, 500, 8
ENGINE_MIB, TOTAL_MIB = 516, 1800
"""What engine-provisioner estimates for these models on a GPU, and room for three of them."""
NAMES = [f"model-{letter}" for letter in "abcdefghijkl"[:POOLS]]
POOL = """
[[pools]]
id = "{name}"
model = "file:{model}"
ctx = 512
slots = 2
preload = false
flags = ["--threads", "1", "--threads-http", "2"]
[pools.provisioning]
mode = "binary"
url = "file:{engine}"
checksum = "sha256:{digest}"
allow_binary_downloads = true
"""
ENGINE = """#!/bin/sh
# Pretend to see the imitated GPU, and run on the CPU.
case "$*" in *--list-devices*) printf 'Available devices:\\n  CUDA0: imitated\\n'; exit;; esac
exec {server} "$@"
"""


@dataclass
class Gpu:
    """Makes the imitated GPU hold ENGINE_MIB for each engine of `directory` that runs."""

    directory: Path
    driver: ImitatedDriver
    running: dict[int, str] = field(default_factory=dict)
    ended: list[tuple[float, str]] = field(default_factory=list)
    most: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def followed(self) -> Iterator[None]:
        thread = threading.Thread(target=self._follow)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(0.01):
            # one may have ended, and another begun, while the processes were listed
            listed = dict(self._engines())
            found = {pid: name for pid, name in listed.items() if Path(f"/proc/{pid}/cmdline").exists()}
            if found == self.running:
                continue
            self.ended += [(time.monotonic(), name) for pid, name in self.running.items() if pid not in found]
            self.running, self.most = found, max(self.most, len(found))
            used = min(TOTAL_MIB, ENGINE_MIB * len(found))
            self.driver.change(used=used, procs=tuple((pid, ENGINE_MIB) for pid in found))

    def _engines(self) -> Iterator[tuple[int, str]]:
        """Yield the pid and the pool of each engine. A process that a starting engine forks is none."""
        found: dict[int, tuple[int, str]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if b"--port" in words and b"--alias" in words and os.fsencode(self.directory) in b"".join(words):
                    parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                    found[int(process.name)] = parent, os.fsdecode(words[words.index(b"--alias") + 1])
            except OSError:
                continue
        return ((pid, name) for pid, (parent, name) in found.items() if parent not in found)


@dataclass(frozen=True)
class Answer:
    """A request for a model: when it was sent, when its answer began and ended, and how many chunks it has."""

    name: str
    sent: float
    began: float
    ended: float
    chunks: int
    status: int


def ask(home: Home, name: str, tokens: int) -> Answer:
    """Ask for a stream and read it."""
    body = {"model": name, "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": "the river"}]}
    sent, began, chunks = time.monotonic(), 0.0, 0
    connection = HTTPConnection("127.0.0.1", home.queen_port, timeout=300)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        whole = False
        while line := answer.readline():
            if line.startswith(b"data: "):
                began = began or time.monotonic()
                chunks, whole = chunks + 1, line.startswith(b"data: [DONE]")
        return Answer(name, sent, began, time.monotonic(), chunks if whole else 0, answer.status)
    finally:
        connection.close()


@contextmanager
def machine(directory: Path) -> Iterator[tuple[Home, Gpu]]:
    """Run the daemons with POOLS pools, none of them loaded, on an imitated GPU."""
    engine = directory / "llama-server"
    engine.write_text(ENGINE.format(server=llama_server_directory() / "bin/llama-server"))
    engine.chmod(0o755)
    digest = hashlib.sha256(engine.read_bytes()).hexdigest()
    entries = []
    for name in NAMES:
        model = directory / f"{name}.gguf"
        model.symlink_to(tiny_model())
        entries.append(POOL.format(name=name, model=model, engine=engine, digest=digest))
    (directory / "pools.toml").write_text("".join(entries))
    driver = ImitatedDriver(directory / "hardware", [ImitatedGpu(total=TOTAL_MIB, used=0)])
    environ = environment(directory, ENGINE_PROVISIONER_GPU_MASK="0", **driver.environ)
    queen, manager = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    home, gpu = Home(directory, environ, queen, manager), Gpu(directory, driver)
    with ExitStack() as cleanup:
        cleanup.enter_context(gpu.followed())
        for name in ("queen-rbee", "pool-managerd", "engine-provisioner"):
            home.start(name)
            cleanup.callback(stop_if_running, home, name)
        home.until(lambda: [pool["state"] for pool in pools(home)] == ["unloaded"] * POOLS, within_s=300)
        yield home, gpu


def pools(home: Home) -> list[dict[str, Any]]:
    return list((home.ask("GET", "/v2/pools")[1] or {}).get("pools", ()))


def records(home: Home) -> list[tuple[str, str]]:
    """Return the events that queen-rbee has logged, each with its pool."""
    lines = (home.directory / "queen-rbee.log").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [(str(record.get("event")), str(record.get("pool_id"))) for record in found]


def unused(log: list[tuple[str, str]]) -> int:
    """Return how many pools were unloaded without having served since they were loaded."""
    served: set[str] = set()
    count = 0
    for event, pool in log:
        if event == "load_ordered":
            served.discard(pool)
        elif event == "task_ended":
            served.add(pool)
        elif event == "unload_ordered":
            count += pool not in served
    return count


def main(requests: int = REQUESTS) -> None:
    choose = random.Random(4)
    work = [(choose.choice(NAMES), choose.randint(4, 24)) for _ in range(requests)]
    with tempfile.TemporaryDirectory() as name, machine(Path(name)) as (home, gpu):
        need = pools(home)[0]["residency"]["need_bytes"]
        begun = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(lambda item: ask(home, *item), work))
        took_s = time.monotonic() - begun
        ended, log = [*gpu.ended], records(home)
        load_s = [pool["residency"]["load_s"] or 0.0 for pool in pools(home)]
    answered = [answer for answer in answers if answer.status == 200 and answer.chunks]
    served = [answer.name for answer in sorted(answered, key=lambda answer: answer.began)]
    given = Counter(event for event, _pool in log)
    loads, fewest = given["load_ordered"], fewest_loads(served, HELD)
    arrived = fewest_loads([name for name, _tokens in work], HELD)
    broken = sum(each.name == pool and each.began < at < each.ended for at, pool in ended for each in answered)
    waits = [answer.began - answer.sent for answer in answered]
    lines = (
        f"{POOLS} models on a GPU that holds {HELD}, {requests} requests of {CLIENTS} clients, {took_s:.0f} s",
        f"answered {len(answered)}; a model needs {need['0'] >> 20} MiB of {TOTAL_MIB}",
        f"loads {loads}, unloads {given['unload_ordered']}; fewest loads for the order of answers {fewest}"
        f" (ratio {loads / fewest:.2f}), for the order of requests {arrived}",
        f"engines that ended during an answer: {broken}; pools that were unloaded unused: {unused(log)}",
        f"most engines at a time: {gpu.most}; last load of each: median {statistics.median(load_s):.2f} s",
        f"first chunk after p50 {percentile(waits, 0.5):.2f} s, p99 {percentile(waits, 0.99):.2f} s,"
        f" max {max(waits):.2f} s; load average {' '.join(f'{each:.1f}' for each in os.getloadavg())}",
    )
    print("\n  ".join(lines))


if __name__ == "__main__":
    main()
