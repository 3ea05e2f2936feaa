"""What passes through the relay: which paths, which headers, to which engine."""

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
def test_a_path_inside_is_passed_as_it_stands(target: str, there: str) -> None:
    assert engine_target(target) == there


@pytest.mark.parametrize(
    "target", ["", "/", "/v2/pools/a/engine/", "/v2/pools/a/engine", "http://x/v2/pools/a/engine/b"]
)
def test_what_is_no_path_of_an_engine_is_refused(target: str) -> None:
    with pytest.raises(ApiError):
        engine_target(target)


@given(st.lists(st.sampled_from(["a", ".", "%2e", "%2E", "%252e", "/", "%2f", "\\", "%5C"]), max_size=8))
def test_no_way_of_writing_two_dots_leads_out(parts: list[str]) -> None:
    plain = {"%2e": ".", "%2E": ".", "%252e": ".", "%2f": "/", "%5C": "/", "\\": "/"}
    meant = "".join(plain.get(part, part) for part in parts).split("/")
    assert has_dot_segments("".join(parts)) is (".." in meant or "." in meant)


def test_a_path_that_is_coded_too_often_is_not_trusted() -> None:
    assert has_dot_segments("%25252525252e")


@given(st.dictionaries(NAMES, st.just("x")))
def test_only_what_an_engine_needs_is_told_to_it(given_headers: dict[str, str]) -> None:
    told = request_headers(
        {**given_headers, "authorization": "Bearer x", SESSION_HEADER: "x", "accept": "a/b"}, "id", None
    )
    assert set(told) <= {"content-type", "accept", "x-correlation-id"}
    assert told["x-correlation-id"] == "id"
    assert told["accept"] == "a/b"


@given(st.dictionaries(NAMES, st.just("x")), NAMES)
def test_what_belongs_to_a_connection_ends_there(headers: dict[str, str], named: str) -> None:
    hop = {"connection": f"close, {named.upper()}", "transfer-encoding": "chunked", named: "x", RELAY_HEADER: "refused"}
    passed = dict(answer_headers(200, headers | hop | {"content-length": "5"}))
    assert not passed.keys() & {"connection", "transfer-encoding", "content-length", RELAY_HEADER, named}


def test_a_known_length_passes_but_not_that_of_no_content() -> None:
    assert answer_headers(200, {"content-length": "5"}) == [("content-length", "5")]
    assert answer_headers(204, {"content-length": "0"}) == []


def engine(number: int, free: int, *more: ProbeResult) -> Replica:
    ready = ProbeResult(HealthAnswer.READY, slots=Slots(8, free))
    return replica(ready, *more, incarnation=number, replica_id=f"r{number}", port=18080 + number)


ENGINES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9), st.booleans()), min_size=1, max_size=6)
"""Of each engine its free slots, its leases, and whether it is ready."""


@given(ENGINES)
def test_the_engine_with_the_fewest_leases_is_asked_then_the_one_with_most_free_slots(
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
def test_the_engine_that_served_the_session_last_is_asked_again_where_it_is_ready_and_has_room(
    drawn: list[tuple[int, int, bool]], last: int
) -> None:
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


def test_an_engine_that_was_announced_anew_has_no_session() -> None:
    idle, anew = engine(1, 8), engine(2, 8)
    assert choose("default", pool(), [idle, anew], {idle.key: 0, anew.key: 1}.__getitem__, last=3) == idle


@pytest.mark.parametrize("last", [None, 1])
def test_a_session_is_no_way_past_a_drain(last: int | None) -> None:
    with pytest.raises(ApiError, match="draining"):
        choose("default", pool(draining=True), [engine(1, 8)], lambda _key: 0, last)


@pytest.mark.parametrize("mark", ["a", "0123456789abcdef" * 4, "A-z_9"])
def test_the_mark_of_a_session_is_taken(mark: str) -> None:
    assert session_of({SESSION_HEADER: mark}) == mark


@pytest.mark.parametrize("mark", ["", " ", "a b", "a" * 65, "a\n", "a,b", "\xe9", "../a"])
def test_a_mark_that_is_none_counts_as_none(mark: str) -> None:
    assert session_of({SESSION_HEADER: mark}) is None
    assert session_of({}) is None


def test_an_engine_of_another_pool_is_never_asked() -> None:
    with pytest.raises(ApiError):
        choose("default", pool(), [replica(ProbeResult(HealthAnswer.READY), pool_id="other")], lambda _key: 0)
