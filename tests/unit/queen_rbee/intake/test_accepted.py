"""The 202's body is what the contract's model encodes."""

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.tasks import Preparation, Streams, TaskAccepted
from queen_rbee.intake.accepted import accepted_json

NUMBERS = st.integers(0, 2**40)


@given(st.uuids(), st.uuids(), NUMBERS, st.none() | NUMBERS, NUMBERS, st.lists(st.text(), max_size=3))
def test_body_equals_that_of_the_contract(task_id, job_id, position, start_ms, backoff_ms, steps):
    path = f"/v2/tasks/{task_id}/events"
    accepted = TaskAccepted(
        task_id=task_id,
        job_id=job_id,
        queue_position=position,
        predicted_start_ms=start_ms,
        backoff_ms=backoff_ms,
        streams=Streams(sse=path, sse_verbose=f"{path}?verbose=true"),
        preparation=Preparation(steps=steps),
    )
    assert accepted_json(task_id, job_id, position, start_ms, backoff_ms, steps) == accepted.model_dump_json().encode()
