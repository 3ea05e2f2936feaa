"""Outcomes of the queen's answers, over real sockets."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import trio
import trio.testing

from llama_orch.contracts.nodes import Heartbeat, NodeRegistration
from llama_orch.settings.types import Secret
from pool_managerd.cluster.queen_client import LIMIT_S, HttpQueenClient
from pool_managerd.cluster.registration import HeartbeatAccepted, NoAnswer, NodeUnknown, Outcome, Registered, Rejected
from tests.unit.pool_managerd.scripted_http import HANG, http, scripted_http

TOKEN = Secret("0123456789abcdef0123")
NODE = NodeRegistration(node_id="gpu-1", machine_id="0" * 32, address="http://192.0.2.7:9200", version="1")
BEAT = Heartbeat(timestamp=datetime(2030, 1, 1, tzinfo=UTC))
INSTANCE = "1" * 32
NO_LISTENER = "http://127.0.0.1:1"


def error(code: str, message: str, hint: str | None = None) -> bytes:
    return json.dumps({"code": code, "message": message, "hint": hint}).encode()


@asynccontextmanager
async def queen(answer: bytes) -> AsyncIterator[HttpQueenClient]:
    farewell = f"/v2/nodes/gpu-1?instance_id={INSTANCE}"
    paths = ("/v2/nodes/register", "/v2/nodes/gpu-1/heartbeat", farewell)
    async with scripted_http(dict.fromkeys(paths, answer)) as port:
        yield HttpQueenClient(f"http://127.0.0.1:{port}", TOKEN)


REGISTERED = b'{"success":true,"message":"welcome","node_id":"gpu-1","warning":"too slow"}'


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http(200, REGISTERED), Registered("welcome", "too slow")),
        (http(200, b'{"success":false,"message":"full","node_id":"gpu-1"}'), Rejected("full")),
        (http(200, b"<html>"), Rejected("its answer cannot be parsed; check that both daemons have the same version")),
        (http(409, error("INVALID_PARAMS", "gpu-1 is another")), Rejected("it answers 409: gpu-1 is another")),
        (http(400, error("INVALID_PARAMS", "no", "Mend it.")), Rejected("it answers 400: no. Mend it.")),
        (http(503, error("INTERNAL", "starting")), NoAnswer("it answers 503: starting")),
        (http(502, b"Bad Gateway\n<hr>"), NoAnswer("it answers 502: Bad Gateway <hr>")),
        (http(429, b""), NoAnswer("it answers 429: no reason given")),
        (b"SSH-2.0\r\n\r\n", NoAnswer("the answer is not HTTP: it begins with 'SSH-2.0'")),
    ],
)
async def test_registration_outcomes(answer: bytes, outcome: Outcome) -> None:
    async with queen(answer) as client:
        assert await client.register(NODE) == outcome


@pytest.mark.parametrize("status", [404, 405])
async def test_home_profile_queen_gets_a_hint_at_the_variable(status: int) -> None:
    async with queen(http(status, b"{}")) as client:
        outcome = await client.register(NODE)
    assert isinstance(outcome, Rejected)
    assert "ORCHESTRATORD_CLOUD_PROFILE=true" in outcome.reason


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http(200, b'{"success":true,"next_heartbeat_ms":700}'), HeartbeatAccepted(700)),
        (
            http(200, b'{"success":true,"next_heartbeat_ms":0}'),
            Rejected("its answer cannot be parsed; check that both daemons have the same version"),
        ),
        (http(200, b'{"success":false,"next_heartbeat_ms":1}'), Rejected("it did not accept the heartbeat")),
        (http(404, b"{}"), NodeUnknown()),
        (http(409, error("INVALID_PARAMS", "another machine")), Rejected("it answers 409: another machine")),
        (http(500, b"x"), NoAnswer("it answers 500: x")),
    ],
)
async def test_heartbeat_outcomes(answer: bytes, outcome: Outcome) -> None:
    async with queen(answer) as client:
        assert await client.heartbeat("gpu-1", BEAT) == outcome


@pytest.mark.parametrize(("status", "left"), [(204, True), (404, True), (500, False), (403, False)])
async def test_deregistration_outcomes(status: int, left: bool) -> None:
    async with queen(http(status, b"") if status != 204 else b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n") as client:
        assert (await client.forget("gpu-1", INSTANCE) == NodeUnknown()) is left


async def test_wrong_token_is_reported_by_fingerprint() -> None:
    async with queen(http(401, error("BAD_TOKEN", "the token is not the one this daemon has"))) as client:
        for outcome in (await client.register(NODE), await client.heartbeat("gpu-1", BEAT)):
            assert isinstance(outcome, Rejected)
            assert f"token_fp6={TOKEN.fingerprint}" in outcome.reason
            assert TOKEN.get_secret_value() not in outcome.reason


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (b"HTTP/1.1 302 X\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n", Rejected, "it answers 302"),
        (
            b"HTTP/1.1 200 X\r\ncontent-length: 500\r\n\r\n" + REGISTERED,
            NoAnswer,
            "closed before the answer was complete",
        ),
        (b"HTTP/1.1 200 X\r\ncontent-le", NoAnswer, "closed before the answer was complete"),
        (http(200, b" " * (2 << 20)), NoAnswer, "the answer is longer than"),
        (http(404, b" " * (2 << 20)), NoAnswer, "the answer is longer than"),
        (http(500, b"<html>" + b"x" * 100_000), NoAnswer, "it answers 500: <html>x"),
    ],
)
async def test_answers_of_proxies_are_quoted_briefly(answer: bytes, outcome: type[Outcome], words: str) -> None:
    async with queen(answer) as client:
        farewell = await client.forget("gpu-1", INSTANCE)
        for answered in (await client.register(NODE), await client.heartbeat("gpu-1", BEAT), farewell):
            assert isinstance(answered, outcome)
            assert isinstance(answered, Rejected | NoAnswer)
            assert words in answered.reason
            assert len(answered.reason) < 500


async def test_refused_connection_is_no_answer() -> None:
    outcome = await HttpQueenClient(NO_LISTENER, TOKEN).register(NODE)
    assert isinstance(outcome, NoAnswer)
    assert "refused" in outcome.reason


async def test_silent_queen_is_no_answer_after_the_limit(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0.1  # what goes over sockets takes less
    async with queen(HANG) as client:
        began_s = trio.current_time()
        assert await client.register(NODE) == NoAnswer(f"no answer within {LIMIT_S:g} s")
        assert LIMIT_S <= trio.current_time() - began_s < 2 * LIMIT_S
