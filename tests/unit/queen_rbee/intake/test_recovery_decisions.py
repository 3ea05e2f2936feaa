"""A stored task runs again or ends, depending on what was delivered, its deadline, and whether it can be read."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.intake.recovery import EndNow, RunAgain, recovery_of
from queen_rbee.store.protocol import StoredTask

SECONDS = st.floats(0, 2e9)
DEADLINES = st.none() | st.integers(1, 10_000_000)


def stored(request: str, submitted: float = 0.0, *, delivered: bool = False, ended: bool = False) -> StoredTask:
    return StoredTask(UUID(int=1), UUID(int=2), request, "c", submitted, delivered=delivered, ended=ended)


def request_json(deadline_ms: int | None = None) -> str:
    return TaskRequest(prompt="a secret", deadline_ms=deadline_ms).model_dump_json(exclude_defaults=True)


@given(SECONDS, SECONDS, DEADLINES)
def test_undelivered_task_runs_again_before_its_deadline(submitted, now, deadline_ms) -> None:
    task = stored(request_json(deadline_ms), submitted)
    recovery = recovery_of(task, now)
    if deadline_ms is not None and now - submitted >= deadline_ms / 1000:
        assert isinstance(recovery, EndNow)
        assert (recovery.code, recovery.retriable) == (ErrorCode.DEADLINE_UNMET, False)
    else:
        assert isinstance(recovery, RunAgain)
        assert recovery.request == TaskRequest(prompt="a secret", deadline_ms=deadline_ms)
        assert (recovery.left_s is None) == (deadline_ms is None)
        assert recovery.left_s is None or 0 < recovery.left_s <= (deadline_ms or 0) / 1000
    assert recovery.stored is task


def test_deadline_counts_from_submission() -> None:
    recovery = recovery_of(stored(request_json(10_000), 1000.0), 1004.0)
    assert isinstance(recovery, RunAgain)
    assert recovery.left_s == 6.0


@given(SECONDS, SECONDS, DEADLINES)
def test_delivered_task_ends_as_retriable(submitted, now, deadline_ms) -> None:
    recovery = recovery_of(stored(request_json(deadline_ms), submitted, delivered=True), now)
    assert isinstance(recovery, EndNow)
    assert (recovery.code, recovery.retriable) == (ErrorCode.WORKER_RESET, True)
    assert recovery.request
    assert "restarted" in recovery.message


@given(SECONDS, SECONDS, DEADLINES)
def test_ended_task_is_not_run_again(submitted, now, deadline_ms) -> None:
    recovery = recovery_of(stored(request_json(deadline_ms), submitted, ended=True), now)
    assert isinstance(recovery, EndNow)
    assert (recovery.code, recovery.retriable) == (ErrorCode.WORKER_RESET, True)
    assert "had ended" in recovery.message


@given(
    st.text() | st.sampled_from(["{}x", '{"prompt":1}', '{"prompt":"a secret","unknown_field":1}', "[]"]), st.booleans()
)
def test_unreadable_task_ends_without_quoting_it(request, delivered) -> None:
    recovery = recovery_of(stored(request, delivered=delivered), 1.0)
    assert isinstance(recovery, EndNow)
    assert (recovery.request, recovery.code, recovery.retriable) == (None, ErrorCode.INTERNAL, False)
    assert "cannot read this task: " in recovery.message
    assert "secret" not in recovery.message


def test_message_lists_few_problems() -> None:
    fields = ",".join(f'"f{number}":1' for number in range(50))
    recovery = recovery_of(stored(f"{{{fields}}}"), 1.0)
    assert isinstance(recovery, EndNow)
    assert recovery.message.endswith("f2: is not a known field; and 47 more")
