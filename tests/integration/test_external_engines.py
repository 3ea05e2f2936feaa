"""Engines of every kind that somebody else runs: from the pools file to the tokens that a client gets.

The daemons are real; the engines speak the wire formats of vLLM, TGI, Triton and OpenAI's API over real sockets.
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
def home_of(directory: Path, pools: str) -> Iterator[Home]:
    """The three daemons over `pools`."""
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


def pools_of(home: Home) -> dict[str, Any]:
    """Every pool by its id, once all are ready."""

    def ready() -> dict[str, Any] | None:
        _status, answer = home.ask("GET", "/v2/pools")
        found = {pool["pool_id"]: pool for pool in (answer or {}).get("pools", ())}
        return found if set(found) == set(KINDS) and all(pool["ready"] for pool in found.values()) else None

    pools: dict[str, Any] = home.until(ready)
    return pools


def answered(home: Home, pool_id: str, prompt: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a task that is pinned to a pool."""
    placement = {"mode": "pin", "pin_pool_id": pool_id}
    status, accepted = home.ask("POST", "/v2/tasks", {"prompt": prompt, "placement": placement})
    assert status == 202, accepted
    with home.stream(accepted["streams"]["sse"]) as stream:
        return [(name, data) for _number, name, data in stream]


def play(directory: Path, urls: dict[str, str]) -> None:
    """What a client sees of the engines at `urls`."""
    engines = {pool_id: kind.engine for pool_id, kind in KINDS.items()}
    pools = [POOL.format(pool_id=id_, engine=engines[id_], slots=SLOTS, url=urls[id_]) for id_ in KINDS]
    with home_of(directory, "".join(pools)) as home:
        known = pools_of(home)
        for pool_id in KINDS:
            pool = known[pool_id]
            assert (pool["engine"], pool["slots_total"]) == (engines[pool_id], SLOTS)
            assert pool["models_available"] == [MODELS[pool_id]]
            assert (pool["engine_version"], pool["ctx_max"]) == (VERSIONS[pool_id], CONTEXTS[pool_id])
            events = answered(home, pool_id, "well")
            assert "".join(data["t"] for name, data in events if name == "token") == "hello world"
            assert events[-1][0] == "end"
            name, error = answered(home, pool_id, "refuse")[-1]
            assert (name, error["code"], error["retriable"]) == ("error", "INVALID_PARAMS", False)
            name, error = answered(home, pool_id, "midway")[-1]
            assert (name, error["code"], error["retriable"]) == ("error", "WORKER_RESET", True)
        assert all(pool["ready"] and not pool["active_leases"] for pool in pools_of(home).values())


async def test_every_external_engine_becomes_ready_and_answers(tmp_path: Path) -> None:
    async with AsyncExitStack() as engines:
        urls = {id_: (await engines.enter_async_context(listening(kind()))).url for id_, kind in KINDS.items()}
        await trio.to_thread.run_sync(play, tmp_path, urls)
