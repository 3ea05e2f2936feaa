"""Circuits open on outages or on failures of different requests, and close after a health check only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.dispatch.circuits import (
    CLOSED,
    FAULTS_TO_OPEN,
    FIRST_RECHECK_S,
    FIRST_REST_S,
    MAX_RECHECK_S,
    MAX_REST_S,
    Circuit,
    Fault,
    after_answer,
    after_check,
    after_fault,
    after_outage,
    during_check,
)


def after_faults(*faults: Fault, now: float = 0.0, circuit: Circuit = CLOSED) -> Circuit:
    for fault in faults:
        circuit = after_fault(circuit, now, fault)
    return circuit


DIFFERENT_FAULTS = [Fault(f"192.0.2.{number}", f"words {number}") for number in range(FAULTS_TO_OPEN)]


def test_faults_of_different_requests_open_it():
    assert after_faults(*DIFFERENT_FAULTS[:-1]).state == "closed"
    assert after_faults(*DIFFERENT_FAULTS).state == "open"


def test_answer_clears_the_faults():
    assert after_answer(after_faults(*DIFFERENT_FAULTS[:-1])) == CLOSED


@given(st.lists(st.builds(Fault, st.just("192.0.2.1"), st.integers()), max_size=50))
def test_one_client_cannot_open_the_circuit(faults):
    assert after_faults(*faults).state == "closed"


@given(st.lists(st.builds(Fault, st.text(), st.just("the same words")), max_size=50))
def test_one_content_cannot_open_the_circuit(faults):
    assert after_faults(*faults).state == "closed"


def test_fault_schedules_a_health_check_at_once():
    circuit = after_faults(DIFFERENT_FAULTS[0], now=7.0)
    assert (circuit.state, circuit.check_at) == ("closed", 7.0)
    assert after_check(during_check(circuit), 8.0, healthy=False).state == "open"
    assert after_check(during_check(circuit), 8.0, healthy=True).state == "closed"


def test_outage_opens_it_and_schedules_a_check_soon():
    circuit = after_outage(CLOSED, 100.0)
    assert (circuit.state, circuit.check_at) == ("open", 100.0 + FIRST_RECHECK_S)


def test_health_check_closes_it():
    assert after_check(during_check(after_outage(CLOSED, 0.0)), 1.0, healthy=True).state == "closed"
    assert after_check(during_check(after_faults(*DIFFERENT_FAULTS)), 1.0, healthy=True).state == "closed"


def test_answer_does_not_close_it():
    for circuit in (
        after_outage(CLOSED, 0.0),
        during_check(after_outage(CLOSED, 0.0)),
        after_faults(*DIFFERENT_FAULTS),
    ):
        assert after_answer(circuit).state == circuit.state != "closed"


def test_failure_while_open_is_ignored():
    circuit = after_outage(CLOSED, 0.0)
    assert after_fault(circuit, 9.0, DIFFERENT_FAULTS[0]) == after_outage(circuit, 9.0) == circuit


def test_check_begun_before_opening_is_ignored():
    circuit = after_outage(during_check(after_faults(DIFFERENT_FAULTS[0])), 1.0)
    assert after_check(circuit, 2.0, healthy=True) == circuit


def test_rest_doubles_until_a_task_is_answered():
    again = after_check(during_check(after_faults(*DIFFERENT_FAULTS)), 1.0, healthy=True)
    assert after_faults(*DIFFERENT_FAULTS, circuit=again).check_at == 2 * FIRST_REST_S
    assert after_faults(*DIFFERENT_FAULTS, circuit=after_answer(again)).check_at == FIRST_REST_S


STEPS = st.sampled_from(["fault", "outage", "check", "healthy", "unhealthy", "answer"])


def step(circuit: Circuit, name: str, now: float) -> Circuit:
    match name:
        case "fault":
            return after_fault(circuit, now, Fault(str(now), now))
        case "outage":
            return after_outage(circuit, now)
        case "check":
            return during_check(circuit) if circuit.check_at <= now else circuit
        case "answer":
            return after_answer(circuit)
    return after_check(circuit, now, healthy=name == "healthy")


@given(st.lists(st.tuples(STEPS, st.floats(0, 100)), max_size=60))
def test_open_circuit_is_always_checked_in_time(steps):
    circuit, now = CLOSED, 0.0
    for name, later_s in steps:
        now += later_s
        before, circuit = circuit, step(circuit, name, now)
        if circuit.state == "open":
            assert circuit.check_at <= now + max(MAX_REST_S, MAX_RECHECK_S)
        if before.state != "closed" and circuit.state == "closed":
            assert name == "healthy", "only a health check closes it"
        assert len(circuit.faults) < FAULTS_TO_OPEN


@pytest.mark.parametrize("misses", [0, 1, 10, 1000])
def test_pause_between_checks_grows_and_is_bounded(misses):
    pause_s = after_outage(Circuit(misses=misses), 0.0).check_at
    assert pause_s == min(FIRST_RECHECK_S * 2.0 ** min(misses, 16), MAX_RECHECK_S)
