"""Clients that do not want to wait for a load are told when to come back; the model is loaded for them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from pydantic import JsonValue

from llama_orch.contracts.pools import PoolState, Residency
from queen_rbee.dispatch.estimates import Arrival
from queen_rbee.intake.progress import INTERVAL_S, report_progress
from queen_rbee.pools.candidates import Demand
from tests.unit.queen_rbee.v1_client import CHAT, V1Server, chat_body, v1_server

LOAD_S = 3.4
BODIES: dict[str, dict[str, JsonValue]] = {
    CHAT: chat_body(model="tiny"),
    "/v1/messages": {**chat_body(model="tiny"), "max_tokens": 4},
    "/v2/tasks": {"model_ref": "tiny", "prompt": "hello"},
}


def unload(server: V1Server, state: PoolState = PoolState.UNLOADED) -> None:
    """Let the model be loaded only in LOAD_S seconds."""
    residency = Residency(slots_total=2, load_s=LOAD_S)
    models = ["hf:org/repo/tiny.gguf"]
    server.queen.pool(state=state, ready=False, live=False, replicas=[], models_available=models, residency=residency)
    server.queen.forecast.arrival = lambda _demand: Arrival("p", LOAD_S, 2)


@asynccontextmanager
async def unloaded_server() -> AsyncIterator[V1Server]:
    async with v1_server() as server:
        unload(server)
        yield server


def promised(server: V1Server) -> list[Demand]:
    return [demand for demand, _since in server.queen.parts.promises.current(trio.current_time())]


@pytest.mark.parametrize(("path", "status"), [(CHAT, 503), ("/v1/messages", 529), ("/v2/tasks", 503)])
async def test_client_that_does_not_wait_is_told_when_to_retry(path, status):
    async with unloaded_server() as server:
        answer = await server.ask(path, BODIES[path], prefer="wait=0")
        assert answer.status == status
        assert answer.headers["retry-after"] == "4"
        assert answer.headers["x-backoff-ms"] == "3400"
        assert answer.headers["preference-applied"] == "wait=0"
        assert "POOL_UNREADY" in answer.body.decode()
        assert [demand.model_ref for demand in promised(server)] == [promised(server)[0].model_ref]
        assert not server.queen.queue


@pytest.mark.parametrize("path", [CHAT, "/v2/tasks"])
async def test_loaded_model_answers_a_client_that_does_not_wait(path):
    async with v1_server() as server:
        answer = await server.ask(path, BODIES[path], prefer="wait=0")
        assert answer.status in (200, 202)
        assert answer.headers["preference-applied"] == "wait=0"
        assert promised(server) == []


async def test_wait_of_the_body_counts_for_tasks():
    async with unloaded_server() as server:
        answer = await server.ask("/v2/tasks", {**BODIES["/v2/tasks"], "wait_s": 0})
        assert (answer.status, answer.json["code"]) == (503, "POOL_UNREADY")


async def test_wait_ends_with_503_and_the_load_goes_on(autojump_clock):
    async with unloaded_server() as server:
        answer = await server.ask(CHAT, BODIES[CHAT], prefer="wait=2")
        assert (answer.status, answer.error["code"]) == (503, "POOL_UNREADY")
        assert answer.headers["retry-after"] == "4"
        assert answer.headers["preference-applied"] == "wait=2"
        assert trio.current_time() == pytest.approx(2.0, abs=0.5)
        assert len(promised(server)) == 1


async def test_wait_for_a_busy_slot_ends_with_429(autojump_clock):
    async with v1_server() as server:
        await server.queen.registry.lease(("p", "r0"))
        await server.queen.registry.lease(("p", "r0"))
        answer = await server.ask(CHAT, BODIES[CHAT], prefer="wait=2")
        assert (answer.status, answer.error["code"]) == (429, "ADMISSION_REJECT")
        assert promised(server) == []


async def test_task_that_starts_in_time_is_answered(autojump_clock):
    async with unloaded_server() as server:
        exchange = server.start(CHAT, BODIES[CHAT], prefer="wait=2")
        await trio.sleep(1.0)
        server.queen.pool(models_available=["hf:org/repo/tiny.gguf"])
        await exchange.finished.wait()
        assert (exchange.status, exchange.headers["preference-applied"]) == (200, "wait=2")


async def test_predicted_start_includes_the_load():
    async with unloaded_server() as server:
        accepted = (await server.ask("/v2/tasks", BODIES["/v2/tasks"])).json
        assert accepted["predicted_start_ms"] == 3400
        assert accepted["preparation"]["steps"] == ["load pool p"]
        behind = [(await server.ask("/v2/tasks", BODIES["/v2/tasks"])).json["predicted_start_ms"] for _ in range(2)]
        assert behind == [3400, 3900]


async def test_readers_see_the_progress_of_a_load(autojump_clock):
    async with unloaded_server() as server:
        queen = server.queen
        task = queen.submit(model_ref="hf:org/repo/tiny.gguf")
        task.log.readers += 1
        server.nursery.start_soon(report_progress, queen.queue, queen.forecast, queen.registry)
        await trio.sleep(INTERVAL_S + 0.1)
        unload(server, PoolState.STARTING)
        await trio.sleep(2 * INTERVAL_S)
        seen = [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == "metrics"]
        assert [event["preparation"]["steps"] for event in seen] == [["finish loading pool p"]]
        assert seen[0]["predicted_start_ms"] == 3400
