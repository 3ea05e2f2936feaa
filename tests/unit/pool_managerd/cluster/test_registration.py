"""Registration state: backoff with jitter, bounded intervals, rate limit of early heartbeats."""

from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.cluster.registration import (
    BACKOFF_MAX_S,
    EARLY_MAX,
    EARLY_WITHIN_S,
    INTERVAL_MAX_S,
    INTERVAL_MIN_S,
    HeartbeatAccepted,
    NoAnswer,
    NodeUnknown,
    Outcome,
    Registered,
    RegistrationState,
    Rejected,
    backoff_s,
    early_heartbeat_at,
    next_state,
)

INTERVALS = st.integers(1, 60).map(float)
JITTERS = st.floats(0, 1, exclude_max=True)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Registered, st.text()),
    st.builds(HeartbeatAccepted, st.integers(1, 3_600_000)),
    st.just(NodeUnknown()),
    st.builds(Rejected, st.text(min_size=1)),
    st.builds(NoAnswer, st.text(min_size=1)),
)


@given(st.integers(0, 10_000), INTERVALS, JITTERS)
def test_backoff_is_at_most_the_interval_and_10_seconds(failures: int, interval_s: float, jitter: float) -> None:
    assert 0 < backoff_s(failures, interval_s, jitter) <= min(interval_s, BACKOFF_MAX_S)


@given(st.integers(0, 4), JITTERS, JITTERS)
def test_backoff_grows_with_any_jitter(failures: int, first: float, second: float) -> None:
    assert backoff_s(failures, 60, first) <= backoff_s(failures + 1, 60, second)


@given(st.integers(0, 100), INTERVALS)
def test_jitter_spreads_retries(failures: int, interval_s: float) -> None:
    assert backoff_s(failures, interval_s, 0.9) > backoff_s(failures, interval_s, 0.1)


@given(st.lists(st.tuples(OUTCOMES, JITTERS), max_size=30), INTERVALS)
def test_any_outcome_leads_to_a_bounded_wait(outcomes: list[tuple[Outcome, float]], interval_s: float) -> None:
    standing, at_once = RegistrationState(), 0
    for outcome, jitter in outcomes:
        standing = next_state(standing, outcome, interval_s, jitter)
        assert 0 <= standing.wait_s <= INTERVAL_MAX_S
        at_once = at_once + 1 if standing.wait_s == 0 and not isinstance(outcome, Registered) else 0
        assert at_once <= 1
        assert standing.steady == isinstance(outcome, HeartbeatAccepted)
        if isinstance(outcome, HeartbeatAccepted):
            assert standing.wait_s >= INTERVAL_MIN_S
            assert standing == RegistrationState(registered=True, wait_s=standing.wait_s, steady=True)
        if isinstance(outcome, Rejected | NoAnswer):
            assert standing.trouble == outcome.reason
            assert standing.wait_s <= min(interval_s, BACKOFF_MAX_S)


def test_no_answer_keeps_the_registration_rejection_drops_it() -> None:
    known = RegistrationState(registered=True)
    assert next_state(known, NoAnswer("x"), 10, 0).registered
    assert not next_state(known, Rejected("x"), 10, 0).registered
    assert not next_state(known, NodeUnknown(), 10, 0).registered


def test_queen_that_forgot_gets_a_registration_immediately() -> None:
    away = next_state(next_state(RegistrationState(registered=True), NoAnswer("x"), 10, 0), NoAnswer("x"), 10, 0)
    assert next_state(away, NodeUnknown(), 10, 0).wait_s == 0


@given(st.lists(st.floats(0, 3), max_size=60))
def test_early_heartbeats_keep_their_rate_limit(pauses: list[float]) -> None:
    sent: list[float] = []
    now_s = 0.0
    for pause in pauses:
        now_s += pause
        at = early_heartbeat_at(sent, now_s)
        assert at >= now_s
        if len([earlier for earlier in sent if earlier > now_s - EARLY_WITHIN_S]) < EARLY_MAX:
            assert at == now_s
        sent.append(at)
        now_s = at
    for index in range(len(sent) - EARLY_MAX):
        assert sent[index + EARLY_MAX] - sent[index] >= EARLY_WITHIN_S - 1e-9
