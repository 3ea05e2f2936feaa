"""The body of the 202 for a /v2 task. Pure."""

from collections.abc import Sequence
from uuid import UUID

from queen_rbee.tasks.event_log import encode_json


def accepted_json(
    task_id: UUID,
    job_id: UUID,
    position: int,
    predicted_start_ms: int | None,
    backoff_ms: int,
    steps: Sequence[str],
) -> bytes:
    """Return the JSON of a `TaskAccepted`. It is written directly: pydantic takes six times as long (12 µs)."""
    name = str(task_id)
    start = "null" if predicted_start_ms is None else predicted_start_ms
    listed = encode_json(list(steps)) if steps else "[]"
    return (
        f'{{"task_id":"{name}","job_id":"{job_id}","queue_position":{position},"predicted_start_ms":{start},'
        f'"backoff_ms":{backoff_ms},"streams":{{"sse":"/v2/tasks/{name}/events",'
        f'"sse_verbose":"/v2/tasks/{name}/events?verbose=true"}},"preparation":{{"steps":{listed}}}}}'
    ).encode()
