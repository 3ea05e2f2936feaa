"""Asking an engine: every kind of answer, and none, is understood and borne."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llama_orch.engines.describing import INDEX, INFO, METADATA, MODELS, PROPERTIES, Details, parsed
from llama_orch.http.client.client import fetch
from pool_managerd.engines.asking import LIMIT_S, REFUSAL, SLOTS, ask, complaint
from pool_managerd.pools.replica import Answer, Sighting, Slots
from tests.unit.pool_managerd.scripted_http import HANG, http, scripted_http
from tests.unit.pool_managerd.values import handoff
from tests.unit.queen_rbee.imitations.openai import OpenAiImitation
from tests.unit.queen_rbee.imitations.server import Imitation, listening
from tests.unit.queen_rbee.imitations.tgi import TgiImitation
from tests.unit.queen_rbee.imitations.triton import TritonImitation
from tests.unit.queen_rbee.imitations.vllm import CACHE_USAGE, VllmImitation

GOOD = http(200, b'{"status":"ok"}')
TWO_SLOTS = http(200, json.dumps([{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]).encode())


async def asked(answers: dict[str, bytes], *, engine: str = "llamacpp", describe: bool = False) -> Sighting:
    async with scripted_http(answers) as port:
        return await ask(handoff(port=port, engine=engine), describe=describe)


async def test_a_ready_engine_tells_its_slots() -> None:
    assert await asked({"/health": GOOD, "/slots": TWO_SLOTS}) == Sighting(Answer.READY, slots=Slots(2, 1))


async def test_a_ready_engine_tells_how_much_of_its_cache_is_in_use() -> None:
    working = {"id": 0, "is_processing": True, "n_ctx": 1000, "n_prompt_tokens": 500}
    idle = {"id": 1, "is_processing": False, "n_ctx": 1000, "n_prompt_tokens": 700}
    answers = {"/health": GOOD, "/slots": http(200, json.dumps([working, idle]).encode())}
    assert await asked(answers) == Sighting(Answer.READY, slots=Slots(2, 1), kv_usage=0.25)


async def test_slots_are_told_also_where_the_tokens_in_them_cannot_be() -> None:
    working = {"id": 0, "is_processing": True, "n_ctx": 1, "n_prompt_tokens": 10**400}
    answers = {"/health": GOOD, "/slots": http(200, json.dumps([working]).encode())}
    assert await asked(answers) == Sighting(Answer.READY, slots=Slots(1, 0))


async def test_an_engine_whose_slots_share_one_cache_is_known_by_its_flags() -> None:
    slots = [{"is_processing": True, "n_ctx": 1000, "n_prompt_tokens": 500}, {"is_processing": False, "n_ctx": 1000}]
    async with scripted_http({"/health": GOOD, "/slots": http(200, json.dumps(slots).encode())}) as port:
        assert (await ask(handoff(port=port, flags=["--kv-unified"]), describe=False)).kv_usage == 0.5


@pytest.mark.parametrize("metrics", [HANG, b"x", http(404, b"{}"), http(200, b"\xff"), http(200, b" " * (2 << 20))])
async def test_an_engine_whose_metrics_are_late_or_odd_is_ready_all_the_same_and_soon(metrics: bytes) -> None:
    with trio.fail_after(LIMIT_S):
        sighting = await asked({"/health": GOOD, "/metrics": metrics}, engine="vllm")
    assert sighting == Sighting(Answer.READY)


@pytest.mark.parametrize("old", [False, True])
async def test_vllm_tells_how_much_of_its_cache_is_in_use(old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_managerd.engines.asking.METRICS_LIMIT_S", 10.0)  # however busy this machine is
    async with listening(VllmImitation(old=old)) as imitation:
        port = int(imitation.url.rpartition(":")[2])
        sighting = await ask(handoff(port=port, engine="vllm"), describe=False)
    assert sighting == Sighting(Answer.READY, kv_usage=CACHE_USAGE)


async def test_an_engine_that_loads_says_so_in_its_own_words() -> None:
    answer = http(503, b'{"error":{"code":503,"message":"Loading model"}}')
    assert await asked({"/health": answer}) == Sighting(Answer.LOADING, "the engine answers 503: Loading model")


@pytest.mark.parametrize("slots", [http(501, b"{}"), http(200, b"{}"), http(200, b"[]"), http(200, b"nonsense"), b"x"])
async def test_an_engine_without_usable_slots_is_ready_all_the_same(slots: bytes) -> None:
    assert await asked({"/health": GOOD, "/slots": slots}) == Sighting(Answer.READY)


async def test_a_refusal_of_the_question_is_no_illness() -> None:
    assert (await asked({"/health": http(404, b"{}")})).answer is Answer.READY


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx", b"\0"])
async def test_what_is_no_engine_is_not_live(answer: bytes) -> None:
    assert (await asked({"/health": answer})).answer is Answer.GONE


async def test_a_closed_port_is_gone_and_the_address_is_named() -> None:
    async with scripted_http({}) as port:
        pass
    sighting = await ask(handoff(port=port), describe=True)
    assert sighting.answer is Answer.GONE
    assert sighting.error
    assert f"cannot connect to 127.0.0.1:{port}" in sighting.error
    assert "refused" in sighting.error


async def test_an_engine_that_does_not_answer_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_managerd.engines.asking.get", partial(fetch, limit_s=0.05))
    assert (await asked({"/health": HANG})).answer is Answer.SILENT


async def test_late_slots_do_not_make_a_healthy_engine_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def impatient(url: str) -> tuple[int, bytes]:
        return await fetch(url, limit_s=0.05 if url.endswith("/slots") else 10.0)

    monkeypatch.setattr("pool_managerd.engines.asking.get", impatient)
    assert await asked({"/health": GOOD, "/slots": HANG}) == Sighting(Answer.READY)


@pytest.mark.parametrize("late", ["/slots", "/props"])
async def test_that_an_engine_is_ready_is_told_in_time_whatever_else_is_late(late: str) -> None:
    answers = {"/health": GOOD, "/slots": TWO_SLOTS, "/v1/models": GOOD, "/props": GOOD} | {late: HANG}
    async with scripted_http(answers) as port:
        with trio.fail_after(2):
            sighting = await ask(handoff(port=port), describe=True, aside_s=0.05)
    assert (sighting.answer, sighting.slots) == (Answer.READY, None)


async def test_an_endless_answer_is_cut_off() -> None:
    with trio.fail_after(10):
        sighting = await asked({"/health": GOOD, "/slots": http(200, b" " * (2 << 20))})
    assert sighting == Sighting(Answer.READY)


async def test_an_engine_tells_what_its_announcement_does_not() -> None:
    answers = {
        "/health": GOOD,
        "/v1/models": http(200, b'{"data":[{"id":"tiny"},{"id":"other"}]}'),
        "/props": http(200, b'{"default_generation_settings":{"n_ctx":512}}'),
    }
    assert (await asked(answers, describe=True)).details == Details(("tiny", "other"), 512)


@pytest.mark.parametrize(
    ("make", "details"),
    [
        (VllmImitation, Details(("org/served",), 2048)),
        (TgiImitation, Details(("org/tgi",), 2048)),
        (TritonImitation, Details(("ensemble",), None)),
        (OpenAiImitation, Details(("org/served",), None)),
    ],
)
async def test_an_engine_of_each_kind_is_ready_and_tells_its_models_in_its_own_way(
    make: Callable[[], Imitation], details: Details
) -> None:
    async with listening(make()) as imitation:
        port = int(imitation.url.rpartition(":")[2])
        sighting = await ask(handoff(port=port, engine=imitation.engine), describe=True)
        assert (sighting.answer, sighting.slots, sighting.details) == (Answer.READY, None, details)
        assert not any(call.path == "/slots" for call in imitation.heard)


@pytest.mark.parametrize(
    ("engine", "path", "status", "answer"),
    [
        ("triton", "/v2/health/ready", 200, Answer.READY),
        ("triton", "/v2/health/ready", 400, Answer.LOADING),
        ("vllm", "/health", 503, Answer.LOADING),
        ("tgi", "/health", 503, Answer.LOADING),
        ("openai-http", "/v1/models", 200, Answer.READY),
        ("openai-http", "/v1/models", 401, Answer.LOADING),
        ("openai-http", "/v1/models", 404, Answer.LOADING),
    ],
)
async def test_each_kind_is_asked_where_it_answers_and_believed(
    engine: str, path: str, status: int, answer: Answer
) -> None:
    assert (await asked({path: http(status, b'{"error":{"message":"no"}}')}, engine=engine)).answer is answer


async def test_a_server_of_openais_api_that_wants_a_key_says_so() -> None:
    body = b'{"error":{"message":"Incorrect API key provided"}}'
    sighting = await asked({"/v1/models": http(401, body)}, engine="openai-http")
    assert sighting.error == "the engine answers 401: Incorrect API key provided"


async def test_the_models_of_a_server_of_openais_api_are_looked_at_each_time() -> None:
    models = http(200, b'{"data":[{"id":"a"},{"id":"b"}]}')
    assert (await asked({"/v1/models": models}, engine="openai-http")).details == Details(("a", "b"), None)


async def test_of_several_models_the_shortest_context_counts() -> None:
    models = http(200, b'{"data":[{"id":"a","max_model_len":4096},{"id":"b","max_model_len":2048},{"id":"c"}]}')
    details = (await asked({"/health": GOOD, "/v1/models": models}, engine="vllm", describe=True)).details
    assert details == Details(("a", "b", "c"), 2048)


@pytest.mark.parametrize("engine", ["vllm", "tgi", "triton"])
async def test_an_engine_that_tells_no_model_is_ready_and_will_be_asked_again(engine: str) -> None:
    answers = dict.fromkeys(("/health", "/v2/health/ready", "/v1/models", "/info", "/v2/repository/index"), GOOD)
    assert await asked(answers, engine=engine, describe=True) == Sighting(Answer.READY)


async def test_only_ready_models_of_triton_that_make_text_of_text_are_served() -> None:
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
    assert (await asked(answers, engine="triton", describe=True)).details == Details(("a",), None)


@given(st.binary(max_size=100) | st.text().map(str.encode) | st.just(b"[" * 100_000), st.integers(500, 599))
def test_any_body_is_borne(body: bytes, status: int) -> None:
    shapes: tuple[TypeAdapter[Any], ...] = (SLOTS, PROPERTIES, REFUSAL, MODELS, INFO, INDEX, METADATA)
    for shape in shapes:
        parsed(shape, body)
    assert len(complaint(status, body)) < 400
