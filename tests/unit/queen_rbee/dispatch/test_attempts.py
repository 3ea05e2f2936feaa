"""Tasks whose replica fails continue elsewhere, wait, or end."""

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.failures import FailureKind, RelayFailure
from queen_rbee.dispatch.runs import MAX_BREAKS, Attempt, counts_as_break, final_failure, may_continue
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.pools.test_placement import candidate

FAILURES = st.builds(RelayFailure, st.sampled_from(FailureKind), st.just("it broke"))
ATTEMPTS = st.builds(Attempt, st.just(candidate()), displaced=st.sampled_from([None, "the node is offline"]))
BREAKS = st.integers(0, 2 * MAX_BREAKS)


def task(*, started: bool = False, ended: bool = False, breaks: int = 0) -> Task:
    subject = Task(TaskRequest(prompt="hello"), "c", 0.0)
    subject.place.breaks = breaks
    if started:
        subject.token("a word", 1.0)
    if ended:
        subject.cancel(2.0)
    return subject


LIMIT_S = 600.0
WAITS = st.floats(0, LIMIT_S, exclude_max=True)


@given(FAILURES, ATTEMPTS, BREAKS, WAITS)
def test_started_or_ended_task_is_not_tried_again(failure, attempt, breaks, waited_s):
    assert not may_continue(task(started=True, breaks=breaks), failure, attempt, waited_s, LIMIT_S)
    assert not may_continue(task(ended=True, breaks=breaks), failure, attempt, waited_s, LIMIT_S)


@given(FAILURES, ATTEMPTS, BREAKS, WAITS)
def test_task_that_no_engine_started_always_continues(failure, attempt, breaks, waited_s):
    if failure.next_step == "elsewhere":
        assert may_continue(task(breaks=breaks), failure, attempt, waited_s, LIMIT_S)


@given(FAILURES, ATTEMPTS, WAITS)
def test_task_that_breaks_replicas_is_tried_a_few_times(failure, attempt, waited_s):
    expected = failure.next_step == "elsewhere" or (failure.next_step == "retry" and attempt.displaced is not None)
    assert may_continue(task(breaks=MAX_BREAKS), failure, attempt, waited_s, LIMIT_S) == expected


@given(FAILURES, ATTEMPTS, BREAKS, st.floats(LIMIT_S, 1e9))
def test_task_ends_after_being_displaced_for_too_long(failure, attempt, breaks, waited_s):
    assert not may_continue(task(breaks=breaks), failure, attempt, waited_s, LIMIT_S)


@given(FAILURES, ATTEMPTS, WAITS)
def test_displacement_does_not_count_as_break(failure, attempt, waited_s):
    assert not (attempt.displaced and counts_as_break(failure, attempt))
    if failure.next_step == "retry":
        assert may_continue(task(), failure, attempt, waited_s, LIMIT_S)


KEYS = st.sets(st.tuples(st.sampled_from("pq"), st.sampled_from(["r0", "r1"])))


def final(
    failure: RelayFailure, attempt: Attempt, tried: set[tuple[str, str]], *, started: bool = False
) -> RelayFailure:
    subject = task(started=started)
    subject.place.tried = tried
    return final_failure(subject, failure, attempt)


@given(FAILURES, ATTEMPTS, KEYS)
def test_exhausted_task_reports_replica_count_and_last_failure(failure, attempt, tried):
    count = len(tried | {attempt.target.key})
    last = final(failure, attempt, tried)
    if count > 1 and failure.next_step != "end":
        assert (last.code, last.retriable) == (ErrorCode.REPLICA_EXHAUSTED, True)
        assert str(last).startswith(f"{count} replicas ")
        assert str(last).endswith(str(failure))
    else:
        assert last is failure


@given(FAILURES, ATTEMPTS, KEYS)
def test_started_task_reports_its_own_failure(failure, attempt, tried):
    assert final(failure, attempt, tried, started=True) is failure


@given(st.booleans(), ATTEMPTS)
def test_exhausted_task_keeps_the_quoted_flag(quoted, attempt):
    busy = RelayFailure(FailureKind.UNAVAILABLE, "no room for: secret", quoted=quoted)
    assert final(busy, attempt, {("q", "r1")}).quoted is quoted
