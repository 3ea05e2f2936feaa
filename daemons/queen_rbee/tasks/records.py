"""The artifact that each task leaves when it ends: what is needed to reproduce it, and never what was asked or said.

Nothing gets in but what is named here, and of parameters only numbers, truth values and the contract's own words.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from llama_orch.contracts.artifacts import NewArtifact
from llama_orch.contracts.tasks import TaskRequest, TaskView
from llama_orch.engines.wire.passage import Passage
from queen_rbee.pools.candidates import Candidate, served_name

KIND = "task"
OF_REQUEST = (
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
OF_BODY = (
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
    """The record of a task that has ended on `target`, or before it was placed."""
    shown = view.model_dump(mode="json", exclude={"queue_position", "predicted_start_ms", "error"})
    if view.error:  # an engine's message may quote what it was asked
        shown["error"] = {"code": view.error.code, "retriable": view.error.retriable}
    tags = [f"task:{view.task_id}", f"state:{view.state.value}"]
    if view.session_id:
        tags.append(f"session:{view.session_id}")
    content: dict[str, JsonValue] = {
        "task": shown,
        "engine": _engine(request, target),
        "endpoint": passage.endpoint if passage else "completion",
        "parameters": of_request(request) | (of_body(passage.body) if passage else {}),
    }
    # nothing of it comes from outside unchecked, and checking it again would cost more than all the rest
    return NewArtifact.model_construct(kind=KIND, tags=tuple(tags), parent=None, content=content)


def _engine(request: TaskRequest, target: Candidate | None) -> dict[str, JsonValue] | None:
    if target is None:
        return None
    model = served_name(target, request.model_ref)
    return {"name": target.engine, "version": target.engine_version, "model": model, "device_mask": target.device_mask}


def of_request(request: TaskRequest) -> dict[str, JsonValue]:
    """The parameters that `request` gives; of a prompt, inputs and stop texts only how many there are."""
    given: dict[str, JsonValue] = {name: getattr(request, name) for name in OF_REQUEST}
    counts = {"inputs": len(request.inputs) or None, "stop": len(request.stop) or None}
    return {name: value for name, value in {**given, **counts}.items() if value is not None}


def of_body(body: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The parameters that an OpenAI body gives: only what is a number or a truth value, whatever the client wrote."""
    return {name: value for name in OF_BODY if _plain(value := body.get(name))}


def _plain(value: JsonValue) -> bool:
    """Whether `value` is a number of a size that parameters have; what a client makes up is left out."""
    return isinstance(value, (bool, int, float)) and abs(value) < 2**64  # false for NaN, too
