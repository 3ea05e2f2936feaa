"""The installed package on a booted Debian: start time, idle memory, and time from a handoff file to a served task."""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException

from tests.engines.llama_server import llama_server_archive
from tests.engines.tiny_model import tiny_model
from tests.system.lab.container import booted
from tests.system.lab.machine import DAEMONS, TARGET, Machine, Pool
from tests.system.lab.package import built_deb
from tests.system.lab.rootfs import SUITES

MODEL = "/srv/tiny.gguf"
STARTS = 9
HANDOFFS = 15
IDLE_S = 10
LIMIT_START_S, LIMIT_RSS_MB, LIMIT_HANDOFF_MS = 1.5, 60, 100
STAMPS = ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
SPOOL = "/run/llama-orch/engines"


def start_times(machine: Machine, daemon: str) -> Iterator[float]:
    """Yield the seconds from `systemctl start` to READY=1, measured by systemd."""
    for _ in range(STARTS):
        machine.systemctl("stop", daemon)
        machine.systemctl("start", daemon)
        begun, ready = (int(machine.show(daemon, name)) for name in STAMPS)
        yield (ready - begun) / 1e6


def rss_mb(machine: Machine, daemon: str) -> float:
    """Return the resident memory of the daemon's main process in MB (10^6 bytes)."""
    status = machine.container.path(f"/proc/{machine.show(daemon, 'MainPID')}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return kib * 1024 / 1e6


def handoff_ms(machine: Machine, url: str, number: int) -> float:
    """Return the milliseconds from the rename of a handoff file to the first token of a task pinned to its pool."""
    pool_id = f"bench-{number}"
    spool = machine.container.path(SPOOL)
    draft, final = spool / ".bench", spool / f"{pool_id}-r0.json"
    model = {"id": "tiny.gguf", "path": MODEL, "ctx_max": 512}
    handoff = {"schema": 1, "pool_id": pool_id, "engine_version": "bench", "url": url, "slots_total": 2, "model": model}
    draft.write_text(json.dumps(handoff))
    draft.chmod(0o640)
    task = {"prompt": "hello", "max_tokens": 1, "placement": {"mode": "pin", "pin_pool_id": pool_id}}
    begun = time.perf_counter()
    os.rename(draft, final)
    while (answer := machine.queen.post("/v2/tasks", task)).status != 202:
        assert answer.status == 409, answer.body
    for event in machine.queen.events(answer.json["streams"]["sse"]):
        if event.name == "token":
            return 1000 * (time.perf_counter() - begun)
    raise AssertionError(f"the task on {pool_id} had no token")


def engine_url(machine: Machine) -> str:
    """Return the URL of the engine of the pool `default`."""
    url = machine.pool("default")["replicas"][0]["url"]
    assert isinstance(url, str)
    return url


def measure(suite: str) -> None:
    """Run the benchmarks on one release and print the results."""
    deb = built_deb()
    with booted(suite, "bench") as container:
        machine = Machine(container)
        machine.install(deb)
        archive = llama_server_archive()
        machine.place(archive, {MODEL: tiny_model()})
        machine.configure(archive, Pool("default", MODEL))
        machine.systemctl("start", TARGET)
        machine.wait_until_served("default")
        url = engine_url(machine)
        times = [handoff_ms(machine, url, number) for number in range(HANDOFFS)]
        print(f"{suite}: handoff rename to first token: median {statistics.median(times):.1f} ms, ", end="")
        print(f"max {max(times):.1f} ms (limit of the median: {LIMIT_HANDOFF_MS} ms)")
        for daemon in DAEMONS:
            starts = list(start_times(machine, daemon))
            print(f"{suite}: {daemon}: start to READY: median {statistics.median(starts):.2f} s, ", end="")
            print(f"max {max(starts):.2f} s (limit of the median: {LIMIT_START_S} s)")
        time.sleep(IDLE_S)
        for daemon in DAEMONS:
            print(f"{suite}: {daemon}: idle RSS {rss_mb(machine, daemon):.1f} MB (limit {LIMIT_RSS_MB} MB)")


def main() -> None:
    """Run the benchmarks on all releases."""
    for suite in SUITES:
        try:
            measure(suite)
        except (OSError, HTTPException) as error:
            print(f"{suite}: benchmark failed: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
