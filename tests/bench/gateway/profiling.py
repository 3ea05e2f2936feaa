"""A profile of queen-rbee under one kind of load: where its time goes, by function."""

import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path

from tests.bench.figures import cores, on_core
from tests.bench.gateway.engine import engine
from tests.bench.gateway.gateways import queen_rbee
from tests.bench.gateway.install import NotInstalled, installed
from tests.bench.gateway.load import PACED_CHAT, STREAMED, WHOLE, ask

SECONDS = 8
RATE = 200
"""Samples per second."""
SHOWN = 20
THREAD = "_bootstrap (threading"
EVERYTHING = 0.9
"""Functions with more than this share of the total time are the loop itself."""
LOADS = {"streamed": (STREAMED, 16), "whole": (WHOLE, 16), "paced": (PACED_CHAT, 32)}
FORMAT = "one line a stack, frames separated by semicolons, and its samples"


def profile(load: str, output: Path | None = None) -> int:
    """Print the twenty most expensive functions of queen-rbee under `load`, by own and by total time."""
    try:
        program = installed("py-spy", "py-spy")
    except NotInstalled as error:
        print(f"no profile: {error}")
        return 1
    core = cores()[1]
    request, clients = LOADS[load]
    with engine(core) as url, queen_rbee(url) as running, on_core(core), tempfile.TemporaryDirectory() as directory:
        ask(running.port, request, clients, seconds=1)
        stacks = output or Path(directory) / "stacks"
        words = [
            str(program),
            "record",
            "-f",
            "raw",
            "-o",
            str(stacks),
            "-r",
            str(RATE),
            "-d",
            str(SECONDS),
        ]
        clients_thread = threading.Thread(
            target=ask, args=(running.port, request, clients), kwargs={"seconds": SECONDS + 3}
        )
        clients_thread.start()
        done = subprocess.run([*words, "-p", str(running.pid)], check=False, capture_output=True, text=True)
        clients_thread.join()
        if done.returncode:
            print(f"no profile: {done.stderr.strip()}")
            return 1
        _print_profile(stacks.read_text())
    return 0


def _print_profile(stacks: str) -> None:
    own, total, samples = Counter[str](), Counter[str](), 0
    for line in stacks.splitlines():
        frames, _, number = line.rpartition(" ")
        names = [_short(frame) for frame in frames.split(";")]
        if THREAD in names[0]:
            continue
        samples += int(number)
        own[names[-1]] += int(number)
        total.update(dict.fromkeys(names, int(number)))
    inner = [(name, number) for name, number in total.most_common() if number < samples * EVERYTHING]
    print(f"{samples} samples of the main thread; shares of own and of total time")
    for (left, mine), (right, all_of) in zip(own.most_common(SHOWN), inner[:SHOWN], strict=False):
        print(f"  {mine / samples:6.1%}  {left:60}  {all_of / samples:6.1%}  {right}")


def _short(frame: str) -> str:
    """Return `function (file)` without the line number, so that a function is counted once."""
    name, _, place = frame.partition(" (")
    return f"{name} ({'/'.join(place.partition(':')[0].rstrip(')').split('/')[-2:])})"
