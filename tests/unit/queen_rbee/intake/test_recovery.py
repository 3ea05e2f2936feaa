"""What becomes of a stored task is decided by what was shown of it, its deadline, and whether it can be read."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.intake.restoring import EndNow, RunAgain, recovered
from queen_rbee.store.protocol import StoredTask

SECONDS = st.floats(0, 2e9)
DEADLINES = st.none() | st.integers(1, 10_000_000)


def stored(request: str, submitted: float = 0.0, *, delivered: bool = False, ended: bool = False) -> StoredTask:
    return StoredTask(UUID(int=1), UUID(int=2), request, "c", submitted, delivered=delivered, ended=ended)


def asking(deadline_ms: int | None = None) -> str:
    return TaskRequest(prompt="a secret", deadline_ms=deadline_ms).model_dump_json(exclude_defaults=True)


@given(SECONDS, SECONDS, DEADLINES)
def test_what_nobody_has_seen_runs_again_unless_its_deadline_has_passed(submitted, now, deadline_ms) -> None:
    task = stored(asking(deadline_ms), submitted)
    found = recovered(task, now)
    if deadline_ms is not None and now - submitted >= deadline_ms / 1000:
        assert isinstance(found, EndNow)
        assert (found.code, found.retriable) == (ErrorCode.DEADLINE_UNMET, False)
    else:
        assert isinstance(found, RunAgain)
        assert found.request == TaskRequest(prompt="a secret", deadline_ms=deadline_ms)
        assert (found.left_s is None) == (deadline_ms is None)
        assert found.left_s is None or 0 < found.left_s <= (deadline_ms or 0) / 1000
    assert found.stored is task


def test_the_deadline_counts_from_the_submission() -> None:
    found = recovered(stored(asking(10_000), 1000.0), 1004.0)
    assert isinstance(found, RunAgain)
    assert found.left_s == 6.0


@given(SECONDS, SECONDS, DEADLINES)
def test_what_somebody_has_seen_a_part_of_ends_and_may_be_asked_again(submitted, now, deadline_ms) -> None:
    found = recovered(stored(asking(deadline_ms), submitted, delivered=True), now)
    assert isinstance(found, EndNow)
    assert (found.code, found.retriable) == (ErrorCode.WORKER_RESET, True)
    assert found.request
    assert "restarted" in found.message


@given(SECONDS, SECONDS, DEADLINES)
def test_what_had_ended_in_a_way_that_was_not_stored_is_not_run_again(submitted, now, deadline_ms) -> None:
    found = recovered(stored(asking(deadline_ms), submitted, ended=True), now)
    assert isinstance(found, EndNow)
    assert (found.code, found.retriable) == (ErrorCode.WORKER_RESET, True)
    assert "had ended" in found.message


@given(
    st.text() | st.sampled_from(["{}x", '{"prompt":1}', '{"prompt":"a secret","of_tomorrow":1}', "[]"]), st.booleans()
)
def test_what_this_release_cannot_read_ends_in_words_that_do_not_quote_it(request, delivered) -> None:
    found = recovered(stored(request, delivered=delivered), 1.0)
    assert isinstance(found, EndNow)
    assert (found.request, found.code, found.retriable) == (None, ErrorCode.INTERNAL, False)
    assert "does not understand this task: " in found.message
    assert "secret" not in found.message


def test_the_problems_named_are_few() -> None:
    fields = ",".join(f'"f{number}":1' for number in range(50))
    found = recovered(stored(f"{{{fields}}}"), 1.0)
    assert isinstance(found, EndNow)
    assert found.message.endswith("f2: is not a known field; and 47 more")
