"""make demo: run the three daemons, a real engine on the CPU and a task through orchctl, without root.

The daemons' processes end before this process ends. All files are written below .runtime, except the engine, which is
stored in the user's cache.
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
DIRECTORY = Path(".runtime/demo")
DAEMONS = ("engine-provisioner", "pool-managerd", "queen-rbee")
PROMPT = "The engine"
READY_WITHIN_S = 600.0
STOP_WITHIN_S = 40.0
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
    """The demo failed. The message says why and what to do."""


def say(text: str) -> None:
    print(f"demo: {text}", flush=True)


def main() -> int:
    """Run the demo and return 0 or an exit status of sysexits.h."""
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
    """Raise DemoFailed with every port that is in use."""
    ports = [
        (queen.address, queen.address_variable),
        (Host(queen.address.host, queen.metrics_port), "PROMETHEUS_METRICS_PORT"),
        (manager.bind, "POOL_MANAGERD_BIND_ADDR"),
        (Host(manager.bind.host, manager.metrics_port), "PROMETHEUS_METRICS_PORT of pool-managerd"),
    ]
    in_use = [f"{address} ({variable})" for address, variable in ports if not _is_free(address)]
    if in_use:
        raise DemoFailed(
            f"address already in use: {', '.join(in_use)} (ss -ltnp shows by whom). "
            "Stop the other program or set the variables."
        )


def _is_free(address: Host) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError:
            return False
    return True


def environment(name: str, environ: dict[str, str]) -> dict[str, str]:
    """Return the environment of the daemon `name`. pool-managerd gets the next PROMETHEUS_METRICS_PORT if it is set."""
    port = environ.get(METRICS_PORT, "")
    if name == "pool-managerd" and port.isdigit():
        return {**environ, METRICS_PORT: str(int(port) + 1)}
    return environ


async def run(address: Host, stop_after_answer: bool) -> None:
    """Make the model, start the daemons, run a task, and serve until interrupted. Raises DemoFailed."""
    environ = await trio.to_thread.run_sync(prepare)
    async with trio.open_nursery() as nursery:
        for name in DAEMONS:
            await nursery.start(daemon, name, environment(name, environ))
        url = f"http://{address}"
        await wait_until_pool_ready(url)
        await run_task(url, environ)
        if not stop_after_answer:
            say(f"serving at {url} until Ctrl-C. In another terminal: .venv/bin/orchctl submit 'The daemon'")
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


def prepare() -> dict[str, str]:
    """Make the model and the pools file, and return the environment of the daemons. Blocks. Raises DemoFailed."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    model, pools = (DIRECTORY / "model.gguf").resolve(), (DIRECTORY / "pools.toml").resolve()
    say("making a small model from the documentation of this project")
    make(model, sentences())
    say("selecting an engine for the CPU of this machine")
    try:
        engine = demo_engine()
    except NoEngine as error:
        raise DemoFailed(str(error)) from error
    say(f"using {engine.name}")
    pools.write_text(POOLS.format(model=model, provisioning=engine.provisioning))
    provisioner = {"ENGINE_PROVISIONER_GPU_MASK": "cpu", "ENGINE_PROVISIONER_POOLS_CONFIG": str(pools)}
    return {**os.environ, **provisioner, "LLAMA_ORCH_LOG_FORMAT": "pretty"}


async def daemon(
    name: str, environ: dict[str, str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run one daemon until cancelled, then stop it with SIGTERM. Raises DemoFailed if it exits before."""
    log = DIRECTORY / f"{name}.log"
    say(f"starting {name}, its log is {log}")
    command = [sys.executable, "-m", name.replace("-", "_")]
    with log.open("wb") as output:
        # In its own process group: Ctrl-C reaches only this process, which then stops the daemons in order.
        process = await trio.lowlevel.open_process(command, env=environ, stderr=output, process_group=0)
    task_status.started()
    try:
        await process.wait()
        raise DemoFailed(f"{name} exited with status {process.returncode}: {last_line(log)}")
    finally:
        await _end(process)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_WITHIN_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it logged nothing"


async def wait_until_pool_ready(url: str) -> None:
    """Wait until a pool is ready, and print each change. Raises DemoFailed."""
    printed = ""
    with trio.move_on_after(READY_WITHIN_S):
        while True:
            for pool in await pools(url):
                text = describe(pool)
                if pool.state is PoolState.FAILED:
                    raise DemoFailed(f"{text}. See {DIRECTORY}/engine-provisioner.log")
                if text != printed:
                    say(text)
                    printed = text
                if pool.ready:
                    return
            await trio.sleep(0.2)
    raise DemoFailed(f"the engine was not ready within {READY_WITHIN_S:g} s. See {DIRECTORY}/engine-provisioner.log")


async def pools(url: str) -> list[PoolStatus]:
    """Return the pools that queen-rbee knows; none while it starts."""
    try:
        status, body = await fetch(f"{url}/v2/pools", limit_s=5)
        return PoolList.model_validate_json(body).pools if status == 200 else []
    except (UpstreamError, ValidationError):
        return []


def describe(pool: PoolStatus) -> str:
    """Return a text such as "pool demo is starting"."""
    reason = f": {pool.last_error}" if pool.last_error else ""
    return f"pool {pool.pool_id} is {pool.state}{reason}"


async def run_task(url: str, environ: dict[str, str]) -> None:
    """Run one task with orchctl, which prints the tokens. Raises DemoFailed."""
    options = ["--url", url, "--max-tokens", "80", "--temperature", "0.7", PROMPT]
    say(f"orchctl submit {' '.join(options[2:-1])} '{PROMPT}'")
    print(f"\n{PROMPT}", end="", flush=True)
    command = [sys.executable, "-m", "orchctl", "submit", *options]
    done = await trio.run_process(command, env=environ, check=False)
    print()
    if done.returncode:
        raise DemoFailed(f"orchctl exited with status {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
