"""What becomes of a task whose replica fails: where it may go on, where it may wait, and when it must end."""

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.failure import Failure
from queen_rbee.dispatch.runs import MOVES_MOST, Attempt, breaks, ending, goes_on
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.pools.test_placement import candidate

FAILURES = st.builds(
    Failure,
    st.just(ErrorCode.WORKER_RESET),
    st.just("it broke"),
    retriable=st.just(True),
    elsewhere=st.booleans(),
    lost=st.booleans(),
)
ATTEMPTS = st.builds(Attempt, st.just(candidate()), lost=st.sampled_from([None, "the node is offline"]))
MOVES = st.integers(0, 2 * MOVES_MOST)


def task(*, shown: bool = False, ended: bool = False, moves: int = 0) -> Task:
    found = Task(TaskRequest(prompt="hello"), "c", 0.0, moves=moves)
    if shown:
        found.token("a word", 1.0)
    if ended:
        found.cancel(2.0)
    return found


LIMIT_S = 600.0
WAITS = st.floats(0, LIMIT_S, exclude_max=True)


@given(FAILURES, ATTEMPTS, MOVES, WAITS)
def test_task_with_a_shown_or_final_answer_is_not_tried_again(failure, attempt, moves, waited_s):
    assert not goes_on(task(shown=True, moves=moves), failure, attempt, waited_s, LIMIT_S)
    assert not goes_on(task(ended=True, moves=moves), failure, attempt, waited_s, LIMIT_S)


@given(FAILURES, ATTEMPTS, MOVES, WAITS)
def test_task_that_no_engine_has_begun_goes_on(failure, attempt, moves, waited_s):
    """However often: nothing says that the task is the cause."""
    if failure.elsewhere:
        assert goes_on(task(moves=moves), failure, attempt, waited_s, LIMIT_S)


@given(FAILURES, ATTEMPTS, WAITS)
def test_task_that_breaks_replicas_is_tried_only_so_often(failure, attempt, waited_s):
    expected = failure.elsewhere or (failure.lost and attempt.lost is not None)
    assert goes_on(task(moves=MOVES_MOST), failure, attempt, waited_s, LIMIT_S) == expected


@given(FAILURES, ATTEMPTS, MOVES, st.floats(LIMIT_S, 1e9))
def test_task_that_loses_places_for_too_long_ends(failure, attempt, moves, waited_s):
    assert not goes_on(task(moves=moves), failure, attempt, waited_s, LIMIT_S)


@given(FAILURES, ATTEMPTS, WAITS)
def test_place_that_is_taken_away_is_no_break(failure, attempt, waited_s):
    assert not (attempt.lost and breaks(failure, attempt))
    if failure.lost:
        assert goes_on(task(), failure, attempt, waited_s, LIMIT_S)


KEYS = st.sets(st.tuples(st.sampled_from("pq"), st.sampled_from(["r0", "r1"])))


def last_word(failure: Failure, attempt: Attempt, refused_by: set[tuple[str, str]], *, shown: bool = False) -> Failure:
    found = task(shown=shown)
    found.tried = refused_by
    return ending(found, failure, attempt)


@given(FAILURES, ATTEMPTS, KEYS)
def test_a_task_that_several_replicas_would_not_take_is_told_how_many_and_why_the_last_one(failure, attempt, refused):
    tried = len(refused | {attempt.target.key})
    told = last_word(failure, attempt, refused)
    if tried > 1 and (failure.elsewhere or failure.lost):
        assert (told.code, told.retriable) == (ErrorCode.REPLICA_EXHAUSTED, True)
        assert str(told).startswith(f"{tried} replicas ")
        assert str(told).endswith(str(failure))
    else:
        assert told is failure


@given(FAILURES, ATTEMPTS, KEYS)
def test_of_a_task_that_has_begun_the_failure_is_told_as_it_is(failure, attempt, refused):
    assert last_word(failure, attempt, refused, shown=True) is failure


@given(st.booleans(), ATTEMPTS)
def test_an_engines_own_words_stay_between_it_and_its_client(quoted, attempt):
    busy = Failure(ErrorCode.WORKER_RESET, "no room for: secret", retriable=True, elsewhere=True, quoted=quoted)
    assert last_word(busy, attempt, {("q", "r1")}).quoted is quoted
