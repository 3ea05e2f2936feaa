"""The artifact of an ended task: what is needed to reproduce it, without prompt or answer.

Only the fields listed here are recorded. Parameters are numbers, booleans and enumerated strings.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from llama_orch.contracts.artifacts import NewArtifact
from llama_orch.contracts.tasks import TaskRequest, TaskView
from llama_orch.engines.wire.passage import Passage
from queen_rbee.pools.candidates import Candidate, served_name

KIND = "task"
REQUEST_FIELDS = (
    "seed",
    "determinism",
    "max_tokens",
    "expected_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "ctx",
    "deadline_ms",
    "kv_hint",
    "output_mode",
)
BODY_FIELDS = (
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "top_n",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "best_of",
    "dimensions",
    "ignore_eos",
    "cache_prompt",
    "parallel_tool_calls",
)


def task_record(
    view: TaskView, request: TaskRequest, target: Candidate | None, passage: Passage | None = None
) -> NewArtifact:
    """Return the record of a task that ended on `target`; `target` is None if it was never placed."""
    task = view.model_dump(mode="json", exclude={"queue_position", "predicted_start_ms", "error"})
    if view.error:  # without the message: an engine's may quote the prompt
        task["error"] = {"code": view.error.code, "retriable": view.error.retriable}
    tags = [f"task:{view.task_id}", f"state:{view.state.value}"]
    if view.session_id:
        tags.append(f"session:{view.session_id}")
    content: dict[str, JsonValue] = {
        "task": task,
        "engine": _engine(request, target),
        "endpoint": passage.endpoint if passage else "completion",
        "parameters": request_parameters(request) | (body_parameters(passage.body) if passage else {}),
    }
    # not validated again: all values are validated already, and that would cost more than everything else here
    return NewArtifact.model_construct(kind=KIND, tags=tuple(tags), parent=None, content=content)


def _engine(request: TaskRequest, target: Candidate | None) -> dict[str, JsonValue] | None:
    if target is None:
        return None
    model = served_name(target, request.model_ref)
    return {"name": target.engine, "version": target.engine_version, "model": model, "device_mask": target.device_mask}


def request_parameters(request: TaskRequest) -> dict[str, JsonValue]:
    """Return the parameters that are set in `request`; of inputs and stop texts only how many there are."""
    parameters: dict[str, JsonValue] = {name: getattr(request, name) for name in REQUEST_FIELDS}
    counts = {"inputs": len(request.inputs) or None, "stop": len(request.stop) or None}
    return {name: value for name, value in {**parameters, **counts}.items() if value is not None}


def body_parameters(body: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the parameters in an OpenAI body; only numbers and booleans, whatever the client wrote."""
    return {name: value for name in BODY_FIELDS if _is_plain_number(value := body.get(name))}


def _is_plain_number(value: JsonValue) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) < 2**64  # false for NaN
