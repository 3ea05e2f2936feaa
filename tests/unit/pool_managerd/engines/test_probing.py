"""Probes of engines of each kind; answers of any shape are tolerated."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llama_orch.engines import KINDS
from llama_orch.engines.engine_client import EngineClient, parse
from llama_orch.engines.kind import Description, Slots
from llama_orch.engines.llamacpp import SLOTS
from llama_orch.engines.openai_models import MODELS
from llama_orch.engines.triton import INDEX, METADATA
from pool_managerd.engines import probing
from pool_managerd.engines.probing import ERROR_BODY, LIMIT_S, error_text, probe
from pool_managerd.pools.replica import HealthAnswer, ProbeResult
from tests.unit.pool_managerd.scripted_http import HANG, http, scripted_http
from tests.unit.pool_managerd.values import handoff
from tests.unit.queen_rbee.imitations.openai import OpenAiImitation
from tests.unit.queen_rbee.imitations.server import Imitation, listening
from tests.unit.queen_rbee.imitations.tgi import TgiImitation
from tests.unit.queen_rbee.imitations.triton import TritonImitation
from tests.unit.queen_rbee.imitations.vllm import CACHE_USAGE, VllmImitation

GOOD = http(200, b'{"status":"ok"}')
TWO_SLOTS = http(200, json.dumps([{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]).encode())


async def probed(answers: dict[str, bytes], *, engine: str = "llamacpp", describe: bool = False) -> ProbeResult:
    async with scripted_http(answers) as port:
        return await probe(handoff(port=port, engine=engine), describe=describe)


async def test_ready_engine_reports_slots() -> None:
    assert await probed({"/health": GOOD, "/slots": TWO_SLOTS}) == ProbeResult(HealthAnswer.READY, slots=Slots(2, 1))


async def test_ready_engine_reports_kv_usage() -> None:
    working = {"id": 0, "is_processing": True, "n_ctx": 1000, "n_prompt_tokens": 500}
    idle = {"id": 1, "is_processing": False, "n_ctx": 1000, "n_prompt_tokens": 700}
    answers = {"/health": GOOD, "/slots": http(200, json.dumps([working, idle]).encode())}
    assert await probed(answers) == ProbeResult(HealthAnswer.READY, slots=Slots(2, 1), kv_usage=0.25)


async def test_slots_are_reported_despite_invalid_token_counts() -> None:
    working = {"id": 0, "is_processing": True, "n_ctx": 1, "n_prompt_tokens": 10**400}
    answers = {"/health": GOOD, "/slots": http(200, json.dumps([working]).encode())}
    assert await probed(answers) == ProbeResult(HealthAnswer.READY, slots=Slots(1, 0))


async def test_kv_usage_follows_the_unified_cache_flag() -> None:
    slots = [{"is_processing": True, "n_ctx": 1000, "n_prompt_tokens": 500}, {"is_processing": False, "n_ctx": 1000}]
    async with scripted_http({"/health": GOOD, "/slots": http(200, json.dumps(slots).encode())}) as port:
        assert (await probe(handoff(port=port, flags=["--kv-unified"]), describe=False)).kv_usage == 0.5


@pytest.mark.parametrize("metrics", [HANG, b"x", http(404, b"{}"), http(200, b"\xff"), http(200, b" " * (2 << 20))])
async def test_bad_metrics_do_not_delay_readiness(metrics: bytes) -> None:
    with trio.fail_after(LIMIT_S):
        result = await probed({"/health": GOOD, "/metrics": metrics}, engine="vllm")
    assert result == ProbeResult(HealthAnswer.READY)


@pytest.mark.parametrize("old", [False, True])
async def test_vllm_reports_kv_usage(old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = replace(KINDS["vllm"], load_limit_s=None)  # the test machine may be busy
    monkeypatch.setitem(KINDS, "vllm", patient)
    async with listening(VllmImitation(old=old)) as imitation:
        port = int(imitation.url.rpartition(":")[2])
        result = await probe(handoff(port=port, engine="vllm"), describe=False)
    assert result == ProbeResult(HealthAnswer.READY, kv_usage=CACHE_USAGE)


async def test_loading_engine_is_quoted() -> None:
    answer = http(503, b'{"error":{"code":503,"message":"Loading model"}}')
    assert await probed({"/health": answer}) == ProbeResult(
        HealthAnswer.LOADING, "the engine answers 503: Loading model"
    )


@pytest.mark.parametrize("slots", [http(501, b"{}"), http(200, b"{}"), http(200, b"[]"), http(200, b"nonsense"), b"x"])
async def test_engine_without_usable_slots_is_ready(slots: bytes) -> None:
    assert await probed({"/health": GOOD, "/slots": slots}) == ProbeResult(HealthAnswer.READY)


async def test_unsupported_health_path_counts_as_ready() -> None:
    assert (await probed({"/health": http(404, b"{}")})).answer is HealthAnswer.READY


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx", b"\0"])
async def test_non_http_listener_is_gone(answer: bytes) -> None:
    assert (await probed({"/health": answer})).answer is HealthAnswer.GONE


async def test_closed_port_is_gone_with_address_in_error() -> None:
    async with scripted_http({}) as port:
        pass
    result = await probe(handoff(port=port), describe=True)
    assert result.answer is HealthAnswer.GONE
    assert result.error
    assert f"cannot connect to 127.0.0.1:{port}" in result.error
    assert "refused" in result.error


async def test_engine_without_answer_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LIMIT_S", 0.05)
    assert (await probed({"/health": HANG})).answer is HealthAnswer.SILENT


async def test_hanging_slots_leave_engine_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(url: str, _limit_s: float, size: int) -> EngineClient:
        return EngineClient(url, 0.05, size)

    monkeypatch.setattr(probing, "EngineClient", impatient)
    assert await probed({"/health": GOOD, "/slots": HANG}) == ProbeResult(HealthAnswer.READY)


@pytest.mark.parametrize("late", ["/slots", "/props"])
async def test_readiness_is_not_delayed_by_extras(late: str) -> None:
    answers = {"/health": GOOD, "/slots": TWO_SLOTS, "/v1/models": GOOD, "/props": GOOD} | {late: HANG}
    async with scripted_http(answers) as port:
        with trio.fail_after(2):
            result = await probe(handoff(port=port), describe=True, extras_s=0.05)
    assert (result.answer, result.slots) == (HealthAnswer.READY, None)


async def test_oversized_answer_is_cut_off() -> None:
    with trio.fail_after(10):
        result = await probed({"/health": GOOD, "/slots": http(200, b" " * (2 << 20))})
    assert result == ProbeResult(HealthAnswer.READY)


async def test_engine_describes_what_the_handoff_omits() -> None:
    answers = {
        "/health": GOOD,
        "/v1/models": http(200, b'{"data":[{"id":"tiny"},{"id":"other"}]}'),
        "/props": http(200, b'{"default_generation_settings":{"n_ctx":512}}'),
    }
    assert (await probed(answers, describe=True)).details == Description(("tiny", "other"), 512)


@pytest.mark.parametrize(
    ("make", "details"),
    [
        (VllmImitation, Description(("org/served",), 2048)),
        (TgiImitation, Description(("org/tgi",), 2048, version="3.3.4")),
        (TritonImitation, Description(("ensemble",), None)),
        (OpenAiImitation, Description(("org/served",), None)),
    ],
)
async def test_each_kind_is_ready_and_described(make: Callable[[], Imitation], details: Description) -> None:
    async with listening(make()) as imitation:
        port = int(imitation.url.rpartition(":")[2])
        result = await probe(handoff(port=port, engine=imitation.engine), describe=True)
        assert (result.answer, result.slots, result.details) == (HealthAnswer.READY, None, details)
        assert not any(call.path == "/slots" for call in imitation.heard)


@pytest.mark.parametrize(
    ("engine", "path", "status", "answer"),
    [
        ("triton", "/v2/health/ready", 200, HealthAnswer.READY),
        ("triton", "/v2/health/ready", 400, HealthAnswer.LOADING),
        ("vllm", "/health", 503, HealthAnswer.LOADING),
        ("tgi", "/health", 503, HealthAnswer.LOADING),
        ("openai-http", "/v1/models", 200, HealthAnswer.READY),
        ("openai-http", "/v1/models", 401, HealthAnswer.LOADING),
        ("openai-http", "/v1/models", 404, HealthAnswer.LOADING),
    ],
)
async def test_health_check_follows_the_kind(engine: str, path: str, status: int, answer: HealthAnswer) -> None:
    assert (await probed({path: http(status, b'{"error":{"message":"no"}}')}, engine=engine)).answer is answer


async def test_openai_server_with_missing_key_is_quoted() -> None:
    body = b'{"error":{"message":"Incorrect API key provided"}}'
    result = await probed({"/v1/models": http(401, body)}, engine="openai-http")
    assert result.error == "the engine answers 401: Incorrect API key provided"


async def test_openai_models_are_read_from_each_health_check() -> None:
    models = http(200, b'{"data":[{"id":"a"},{"id":"b"}]}')
    assert (await probed({"/v1/models": models}, engine="openai-http")).details == Description(("a", "b"), None)


async def test_shortest_context_of_several_models_counts() -> None:
    models = http(200, b'{"data":[{"id":"a","max_model_len":4096},{"id":"b","max_model_len":2048},{"id":"c"}]}')
    details = (await probed({"/health": GOOD, "/v1/models": models}, engine="vllm", describe=True)).details
    assert details == Description(("a", "b", "c"), 2048)


@pytest.mark.parametrize("engine", ["vllm", "tgi", "triton"])
async def test_engine_without_models_stays_undescribed(engine: str) -> None:
    answers = dict.fromkeys(("/health", "/v2/health/ready", "/v1/models", "/info", "/v2/repository/index"), GOOD)
    assert await probed(answers, engine=engine, describe=True) == ProbeResult(HealthAnswer.READY)


async def test_triton_serves_only_ready_text_models() -> None:
    text = b'{"inputs":[{"name":"text_input"}],"outputs":[{"name":"text_output"}]}'
    index = [{"name": name, "state": "READY"} for name in ("a", "b", "a", "c")] + [{"name": "d"}, {"name": "e"}]
    answers = {
        "/v2/health/ready": GOOD,
        "/v2/repository/index": http(200, json.dumps(index).encode()),
        "/v2/models/a": http(200, text),
        "/v2/models/b": http(200, b'{"inputs":[],"outputs":[{"name":"text_output"}]}'),
        "/v2/models/c": http(200, b"nonsense"),
        "/v2/models/d": http(200, text),
    }
    assert (await probed(answers, engine="triton", describe=True)).details == Description(("a",), None)


@given(st.binary(max_size=100) | st.text().map(str.encode) | st.just(b"[" * 100_000), st.integers(500, 599))
def test_malformed_bodies_are_tolerated(body: bytes, status: int) -> None:
    shapes: tuple[TypeAdapter[Any], ...] = (SLOTS, ERROR_BODY, MODELS, INDEX, METADATA)
    for shape in shapes:
        parse(shape, body)
    assert len(error_text(status, body)) < 400
