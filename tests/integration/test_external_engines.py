"""External engines of every kind, from the pools file to the tokens that a client receives.

The daemons are real. The engines are imitations of vLLM, TGI, Triton and OpenAI's API on real sockets.
"""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import trio

from tests.integration.home import Home, environment
from tests.unit.queen_rbee.imitations.openai import OpenAiImitation
from tests.unit.queen_rbee.imitations.server import Imitation, listening
from tests.unit.queen_rbee.imitations.tgi import TgiImitation
from tests.unit.queen_rbee.imitations.triton import TritonImitation
from tests.unit.queen_rbee.imitations.vllm import VllmImitation

DAEMONS = ("queen-rbee", "pool-managerd", "engine-provisioner")
SLOTS = 3
POOL = """
[[pools]]
id = "{pool_id}"
engine = "{engine}"
slots = {slots}
provisioning = {{ mode = "external", url = "{url}" }}
"""
KINDS: dict[str, type[Imitation]] = {
    "vllm": VllmImitation,
    "tgi": TgiImitation,
    "triton": TritonImitation,
    "openai": OpenAiImitation,
}
MODELS = {"vllm": "org/served", "tgi": "org/tgi", "triton": "ensemble", "openai": "org/served"}
VERSIONS = {"vllm": "0.11.0", "tgi": "3.3.4", "triton": "2.59.0", "openai": "unknown"}
CONTEXTS = {"vllm": 2048, "tgi": 2048, "triton": None, "openai": None}


@contextmanager
def home_with_pools(directory: Path, pools: str) -> Iterator[Home]:
    """Run the three daemons with `pools` as the pools file."""
    (directory / "pools.toml").write_text(pools)
    environ = environment(directory)
    queen, pool_managerd = (
        int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
    )
    home = Home(directory, environ, queen, pool_managerd)
    try:
        for name in DAEMONS:
            home.start(name)
        yield home
    finally:
        statuses = {name: home.stop(name) for name in list(home.processes)}
    assert set(statuses.values()) == {0}, home.logs()


def wait_for_pools(home: Home) -> dict[str, Any]:
    """Wait until all pools are ready and return them by id."""

    def ready() -> dict[str, Any] | None:
        _status, answer = home.ask("GET", "/v2/pools")
        found = {pool["pool_id"]: pool for pool in (answer or {}).get("pools", ())}
        return found if set(found) == set(KINDS) and all(pool["ready"] for pool in found.values()) else None

    pools: dict[str, Any] = home.until(ready)
    return pools


def run_task(home: Home, pool_id: str, prompt: str) -> list[tuple[str, dict[str, Any]]]:
    """Submit a task pinned to a pool and return its events."""
    placement = {"mode": "pin", "pin_pool_id": pool_id}
    status, accepted = home.ask("POST", "/v2/tasks", {"prompt": prompt, "placement": placement})
    assert status == 202, accepted
    with home.stream(accepted["streams"]["sse"]) as stream:
        return [(name, data) for _number, name, data in stream]


def check_engines(directory: Path, urls: dict[str, str]) -> None:
    """Run the daemons with the engines at `urls` and check their pools and answers."""
    engines = {pool_id: kind.engine for pool_id, kind in KINDS.items()}
    pools = [POOL.format(pool_id=id_, engine=engines[id_], slots=SLOTS, url=urls[id_]) for id_ in KINDS]
    with home_with_pools(directory, "".join(pools)) as home:
        known = wait_for_pools(home)
        for pool_id in KINDS:
            pool = known[pool_id]
            assert (pool["engine"], pool["slots_total"]) == (engines[pool_id], SLOTS)
            assert pool["models_available"] == [MODELS[pool_id]]
            assert (pool["engine_version"], pool["ctx_max"]) == (VERSIONS[pool_id], CONTEXTS[pool_id])
            events = run_task(home, pool_id, "well")
            assert "".join(data["t"] for name, data in events if name == "token") == "hello world"
            assert events[-1][0] == "end"
            name, error = run_task(home, pool_id, "refuse")[-1]
            assert (name, error["code"], error["retriable"]) == ("error", "INVALID_PARAMS", False)
            name, error = run_task(home, pool_id, "midway")[-1]
            assert (name, error["code"], error["retriable"]) == ("error", "WORKER_RESET", True)
        assert all(pool["ready"] and not pool["active_leases"] for pool in wait_for_pools(home).values())


async def test_every_external_engine_becomes_ready_and_answers(tmp_path: Path) -> None:
    async with AsyncExitStack() as engines:
        urls = {id_: (await engines.enter_async_context(listening(kind()))).url for id_, kind in KINDS.items()}
        await trio.to_thread.run_sync(check_engines, tmp_path, urls)
