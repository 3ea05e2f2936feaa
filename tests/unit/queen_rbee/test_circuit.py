"""Circuits open after failures in a row, rest for longer each time, and close with the first task that is answered."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.circuit import FAULTS, FIRST_REST_S, LONGEST_REST_S, Circuit, failed, rested, worked


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(FAULTS):
        circuit = failed(circuit, now)
    return circuit


def test_faults_in_a_row_open_it_and_an_answer_between_them_does_not_count_them_on():
    circuit = Circuit()
    for _ in range(FAULTS - 1):
        circuit = failed(circuit, 0.0)
    assert circuit.state == "closed"
    assert failed(worked(circuit), 0.0).state == "closed"
    assert failed(circuit, 0.0).state == "open"


def test_it_is_tried_when_it_has_rested_and_not_before():
    circuit = opened(now=100.0)
    assert rested(circuit, 100.0 + FIRST_REST_S - 0.001).state == "open"
    assert rested(circuit, 100.0 + FIRST_REST_S).state == "half-open"


def test_the_first_answer_of_a_half_open_one_closes_it_as_new():
    assert worked(rested(opened(), 1e9)) == Circuit()


def test_the_first_fault_of_a_half_open_one_opens_it_for_twice_as_long():
    again = failed(rested(opened(), 1e9), 0.0)
    assert (again.state, again.retry_at) == ("open", 2 * FIRST_REST_S)


def test_a_task_that_was_under_way_neither_closes_an_open_one_nor_prolongs_its_rest():
    circuit = opened(now=0.0)
    assert worked(circuit).state == "open"
    assert failed(circuit, 1.0).retry_at == circuit.retry_at


@given(st.lists(st.sampled_from([failed, rested, worked]), max_size=60))
def test_whatever_happens_an_open_one_is_tried_within_the_longest_rest(steps):
    circuit, now = Circuit(), 0.0
    for step in steps:
        now += 1.0
        circuit = worked(circuit) if step is worked else step(circuit, now)
        if circuit.state == "open":
            assert rested(circuit, now + LONGEST_REST_S).state == "half-open"
        else:
            assert circuit.retry_at == float("inf")
