"""The relay's rules: paths, headers, choice of engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.nodes import RELAY_HEADER, SESSION_HEADER
from llama_orch.contracts.pools import PoolState, PoolStatus
from llama_orch.engines.kind import Slots
from pool_managerd.pools.replica import HealthAnswer, Key, ProbeResult, Replica
from pool_managerd.relay.rules import (
    answer_headers,
    choose,
    engine_target,
    has_dot_segments,
    request_headers,
    session_of,
)
from tests.unit.pool_managerd.values import GONE, replica

NAMES = st.from_regex(r"[a-z]{1,12}", fullmatch=True)


def pool(**fields) -> PoolStatus:
    usual = {
        "pool_id": "default",
        "state": "ready",
        "live": True,
        "ready": True,
        "draining": False,
        "engine": "llamacpp",
    }
    return PoolStatus.model_validate(usual | fields)


@pytest.mark.parametrize(
    ("target", "there"),
    [
        ("/v2/pools/a/engine/v1/models", "/v1/models"),
        ("/v2/pools/a/engine/completion?x=1&x=2", "/completion?x=1&x=2"),
        ("/v2/pools/a/engine/v1%2Fmodels", "/v1%2Fmodels"),
        ("/v2/pools/a/engine/engine/b", "/engine/b"),
        ("/v2/pools/a/engine/x?to=../..", "/x?to=../.."),
        ("/v2/pools/a/engine/...", "/..."),
    ],
)
def test_path_is_passed_on_unchanged(target: str, there: str) -> None:
    assert engine_target(target) == there


@pytest.mark.parametrize(
    "target", ["", "/", "/v2/pools/a/engine/", "/v2/pools/a/engine", "http://x/v2/pools/a/engine/b"]
)
def test_invalid_path_is_refused(target: str) -> None:
    with pytest.raises(ApiError):
        engine_target(target)


@given(st.lists(st.sampled_from(["a", ".", "%2e", "%2E", "%252e", "/", "%2f", "\\", "%5C"]), max_size=8))
def test_encoded_dot_segments_are_detected(parts: list[str]) -> None:
    plain = {"%2e": ".", "%2E": ".", "%252e": ".", "%2f": "/", "%5C": "/", "\\": "/"}
    meant = "".join(plain.get(part, part) for part in parts).split("/")
    assert has_dot_segments("".join(parts)) is (".." in meant or "." in meant)


def test_path_encoded_too_often_is_refused() -> None:
    assert has_dot_segments("%25252525252e")


@given(st.dictionaries(NAMES, st.just("x")))
def test_only_listed_request_headers_pass(given_headers: dict[str, str]) -> None:
    told = request_headers(
        {**given_headers, "authorization": "Bearer x", SESSION_HEADER: "x", "accept": "a/b"}, "id", {}
    )
    assert set(told) <= {"content-type", "accept", "x-correlation-id"}
    assert told["x-correlation-id"] == "id"
    assert told["accept"] == "a/b"


@given(st.dictionaries(NAMES, st.just("x")), NAMES)
def test_hop_by_hop_headers_are_dropped(headers: dict[str, str], named: str) -> None:
    hop = {"connection": f"close, {named.upper()}", "transfer-encoding": "chunked", named: "x", RELAY_HEADER: "refused"}
    passed = dict(answer_headers(200, headers | hop | {"content-length": "5"}))
    assert not passed.keys() & {"connection", "transfer-encoding", "content-length", RELAY_HEADER, named}


def test_content_length_passes_except_with_204() -> None:
    assert answer_headers(200, {"content-length": "5"}) == [("content-length", "5")]
    assert answer_headers(204, {"content-length": "0"}) == []


def engine(number: int, free: int, *more: ProbeResult) -> Replica:
    ready = ProbeResult(HealthAnswer.READY, slots=Slots(8, free))
    return replica(ready, *more, incarnation=number, replica_id=f"r{number}", port=18080 + number)


ENGINES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9), st.booleans()), min_size=1, max_size=6)
"""For each engine: free slots, leases, ready or not."""


@given(ENGINES)
def test_fewest_leases_win_then_most_free_slots(
    drawn: list[tuple[int, int, bool]],
) -> None:
    engines = [engine(number, free, *([] if ready else [GONE])) for number, (free, _held, ready) in enumerate(drawn)]
    held: dict[Key, int] = {one.key: count for one, (_free, count, _ready) in zip(engines, drawn, strict=True)}
    ready = [one for one in engines if one.state is PoolState.READY]
    if not ready:
        with pytest.raises(ApiError) as refused:
            choose("default", pool(ready=False, state="starting"), engines, held.__getitem__)
        assert refused.value.status == 503
        return
    chosen = choose("default", pool(), engines, held.__getitem__)
    assert chosen in ready
    assert held[chosen.key] == min(held[one.key] for one in ready)
    assert chosen.slots.free == max(one.slots.free for one in ready if held[one.key] == held[chosen.key])


@given(ENGINES, st.integers(0, 7))
def test_last_engine_of_the_session_wins_if_it_has_room(drawn: list[tuple[int, int, bool]], last: int) -> None:
    engines = [engine(number, free, *([] if ready else [GONE])) for number, (free, _held, ready) in enumerate(drawn)]
    held = {one.key: count for one, (_free, count, _ready) in zip(engines, drawn, strict=True)}
    if all(one.state is not PoolState.READY for one in engines):
        return
    chosen = choose("default", pool(), engines, held.__getitem__, last)
    known = next((one for one in engines if one.incarnation == last), None)
    if known and known.state is PoolState.READY and held[known.key] < known.slots.total:
        assert chosen == known
    else:
        assert chosen == choose("default", pool(), engines, held.__getitem__)


def test_reannounced_engine_has_no_sessions() -> None:
    idle, anew = engine(1, 8), engine(2, 8)
    assert choose("default", pool(), [idle, anew], {idle.key: 0, anew.key: 1}.__getitem__, last=3) == idle


@pytest.mark.parametrize("last", [None, 1])
def test_session_does_not_bypass_a_drain(last: int | None) -> None:
    with pytest.raises(ApiError, match="draining"):
        choose("default", pool(draining=True), [engine(1, 8)], lambda _key: 0, last)


@pytest.mark.parametrize("mark", ["a", "0123456789abcdef" * 4, "A-z_9"])
def test_session_mark_is_read(mark: str) -> None:
    assert session_of({SESSION_HEADER: mark}) == mark


@pytest.mark.parametrize("mark", ["", " ", "a b", "a" * 65, "a\n", "a,b", "\xe9", "../a"])
def test_malformed_session_mark_is_ignored(mark: str) -> None:
    assert session_of({SESSION_HEADER: mark}) is None
    assert session_of({}) is None


def test_engine_of_another_pool_is_never_chosen() -> None:
    with pytest.raises(ApiError):
        choose("default", pool(), [replica(ProbeResult(HealthAnswer.READY), pool_id="other")], lambda _key: 0)
