"""Asking an engine: every kind of answer, and none, is understood and borne."""

import json
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.http.client import fetch
from pool_managerd.engine import PROPERTIES, REFUSAL, SLOTS, ask, complaint, parsed
from pool_managerd.replica import Answer, Details, Sighting, Slots
from tests.unit.pool_managerd.scripted_http import HANG, http, scripted_http
from tests.unit.pool_managerd.values import handoff

GOOD = http(200, b'{"status":"ok"}')
TWO_SLOTS = http(200, json.dumps([{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]).encode())


async def asked(answers: dict[str, bytes], *, describe: bool = False) -> Sighting:
    async with scripted_http(answers) as port:
        return await ask(handoff(port=port), describe=describe)


async def test_a_ready_engine_tells_its_slots() -> None:
    assert await asked({"/health": GOOD, "/slots": TWO_SLOTS}) == Sighting(Answer.READY, slots=Slots(2, 1))


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
    monkeypatch.setattr("pool_managerd.engine.get", partial(fetch, limit_s=0.05))
    assert (await asked({"/health": HANG})).answer is Answer.SILENT


async def test_late_slots_do_not_make_a_healthy_engine_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def impatient(url: str) -> tuple[int, bytes]:
        return await fetch(url, limit_s=0.05 if url.endswith("/slots") else 10.0)

    monkeypatch.setattr("pool_managerd.engine.get", impatient)
    assert await asked({"/health": GOOD, "/slots": HANG}) == Sighting(Answer.READY)


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


@given(st.binary(max_size=100) | st.text().map(str.encode) | st.just(b"[" * 100_000), st.integers(500, 599))
def test_any_body_is_borne(body: bytes, status: int) -> None:
    parsed(SLOTS, body)
    parsed(PROPERTIES, body)
    parsed(REFUSAL, body)
    assert len(complaint(status, body)) < 400
