"""make demo: the three daemons, a real engine on this machine's CPU and a task through orchctl, without root.

Owns the daemons' processes: each is ended before this one ends. Everything is written below .runtime, but for the
engine, which is kept in the user's cache.
"""

import argparse
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import trio
from pydantic import ValidationError

from llama_orch.addresses import Host
from llama_orch.contracts.pools import PoolList, PoolState, PoolStatus
from llama_orch.http.client.client import UpstreamError, fetch
from llama_orch.service.exit import ExitStatus
from llama_orch.settings.loading import ConfigurationError
from pool_managerd.settings import PoolManagerSettings
from queen_rbee.settings import QueenSettings
from tools.demo_corpus import sentences
from tools.demo_engine import NoEngine, demo_engine
from tools.demo_model import make

METRICS_PORT = "PROMETHEUS_METRICS_PORT"
HERE = Path(".runtime/demo")
DAEMONS = ("engine-provisioner", "pool-managerd", "queen-rbee")
PROMPT = "The queen"
LIMIT_S = 600.0
STOP_S = 40.0
POOLS = """\
# written by make demo
[[pools]]
id = "demo"
engine = "llamacpp"
model = "file:{model}"
ctx = 2048
slots = 2

[pools.provisioning]
{provisioning}
"""


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and what to do."""


def say(text: str) -> None:
    """One line of progress."""
    print(f"demo: {text}", flush=True)


def main() -> int:
    """Run the demo; the exit status is 0, or one of sysexits(3)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exit", action="store_true", help="stop after the answer")
    options = parser.parse_args()
    try:
        queen = QueenSettings.load(os.environ)
        _check_ports(queen, PoolManagerSettings.load(environment("pool-managerd", dict(os.environ))))
        trio.run(run, queen.address, options.exit)
    except* KeyboardInterrupt:
        say("stopped")
    except* (DemoFailed, ConfigurationError) as group:
        for error in group.exceptions:
            print(f"demo: {error}", file=sys.stderr)
        sys.exit(ExitStatus.UNAVAILABLE)
    return 0


def _check_ports(queen: QueenSettings, manager: PoolManagerSettings) -> None:
    """Name every port that is taken before anything is started."""
    wanted = [
        (queen.address, queen.address_variable),
        (Host(queen.address.host, queen.metrics_port), "PROMETHEUS_METRICS_PORT"),
        (manager.bind, "POOL_MANAGERD_BIND_ADDR"),
        (Host(manager.bind.host, manager.metrics_port), "PROMETHEUS_METRICS_PORT of pool-managerd"),
    ]
    taken = [f"{address} ({variable})" for address, variable in wanted if not _is_free(address)]
    if taken:
        raise DemoFailed(f"already in use: {', '.join(taken)}. See who holds them: ss -ltnp. Or set the variables.")


def _is_free(address: Host) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError:
            return False
    return True


def environment(name: str, environ: dict[str, str]) -> dict[str, str]:
    """The environment of the daemon `name`: one PROMETHEUS_METRICS_PORT cannot be that of two daemons."""
    port = environ.get(METRICS_PORT, "")
    if name == "pool-managerd" and port.isdigit():
        return {**environ, METRICS_PORT: str(int(port) + 1)}
    return environ


async def run(address: Host, stop_after_answer: bool) -> None:
    """Everything from the model to the answer, and then serve until interrupted. Raises DemoFailed."""
    environ = await trio.to_thread.run_sync(prepare)
    async with trio.open_nursery() as nursery:
        for name in DAEMONS:
            await nursery.start(daemon, name, environment(name, environ))
        url = f"http://{address}"
        await pool_ready(url)
        await ask(url, environ)
        if not stop_after_answer:
            say(f"serving at {url} until Ctrl-C. In another terminal: .venv/bin/orchctl submit 'The engine'")
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


def prepare() -> dict[str, str]:
    """Make the model and the pools file; the environment of the daemons. Blocks. Raises DemoFailed."""
    HERE.mkdir(parents=True, exist_ok=True)
    model, pools = (HERE / "model.gguf").resolve(), (HERE / "pools.toml").resolve()
    say("making a small model from this project's own documentation")
    make(model, sentences())
    say("looking for an engine that runs on this machine's CPU")
    try:
        engine = demo_engine()
    except NoEngine as error:
        raise DemoFailed(str(error)) from error
    say(f"it is {engine.name}")
    pools.write_text(POOLS.format(model=model, provisioning=engine.provisioning))
    on_cpu = {"ENGINE_PROVISIONER_GPU_MASK": "cpu", "ENGINE_PROVISIONER_POOLS_CONFIG": str(pools)}
    return {**os.environ, **on_cpu, "LLAMA_ORCH_LOG_FORMAT": "pretty"}


async def daemon(
    name: str, environ: dict[str, str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run one daemon until cancelled, then end it by SIGTERM. Raises DemoFailed when it ends by itself."""
    log = HERE / f"{name}.log"
    say(f"starting {name}, its log is {log}")
    command = [sys.executable, "-m", name.replace("-", "_")]
    with log.open("wb") as output:
        # a group of its own: Ctrl-C reaches this process alone, which then ends the daemons in order
        process = await trio.lowlevel.open_process(command, env=environ, stderr=output, process_group=0)
    task_status.started()
    try:
        await process.wait()
        raise DemoFailed(f"{name} ended with status {process.returncode}: {last_line(log)}")
    finally:
        await _end(process)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def last_line(log: Path) -> str:
    """The last words of a log."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


async def pool_ready(url: str) -> None:
    """Return when a pool is ready, telling each change on the way. Raises DemoFailed."""
    told = ""
    with trio.move_on_after(LIMIT_S):
        while True:
            for pool in await pools(url):
                text = describe(pool)
                if pool.state is PoolState.FAILED:
                    raise DemoFailed(f"{text}. See {HERE}/engine-provisioner.log")
                if text != told:
                    say(text)
                    told = text
                if pool.ready:
                    return
            await trio.sleep(0.2)
    raise DemoFailed(f"the engine was not ready within {LIMIT_S:g} s. See {HERE}/engine-provisioner.log")


async def pools(url: str) -> list[PoolStatus]:
    """What the queen knows of pools; nothing while she starts."""
    try:
        status, body = await fetch(f"{url}/v2/pools", limit_s=5)
        return PoolList.model_validate_json(body).pools if status == 200 else []
    except (UpstreamError, ValidationError):
        return []


def describe(pool: PoolStatus) -> str:
    """As in "pool demo is starting"."""
    reason = f": {pool.last_error}" if pool.last_error else ""
    return f"pool {pool.pool_id} is {pool.state}{reason}"


async def ask(url: str, environ: dict[str, str]) -> None:
    """One task through orchctl, its tokens on this terminal as they come. Raises DemoFailed."""
    options = ["--url", url, "--max-tokens", "80", "--temperature", "0.7", PROMPT]
    say(f"orchctl submit {' '.join(options[2:-1])} '{PROMPT}'")
    print(f"\n{PROMPT}", end="", flush=True)
    command = [sys.executable, "-m", "orchctl", "submit", *options]
    done = await trio.run_process(command, env=environ, check=False)
    print()
    if done.returncode:
        raise DemoFailed(f"orchctl ended with status {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
