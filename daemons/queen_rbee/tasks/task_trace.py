"""The spans of one task: admission, queue, load, placement, dispatch, the call to the engine, relay.

A task that is placed again has several of most of them. Names of our own begin with `llama_orch.`; the call to the
engine follows the semantic conventions of OpenTelemetry for generative AI (v0.1.0). Prompts, answers, stop texts and
engines' messages are never recorded.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from llama_orch.engines.wire.model_names import public_name
from llama_orch.telemetry.tracing.spans import Attributes, Tracer, active, current, fail, given, start_ns
from queen_rbee.pools.candidates import Candidate, served_name
from queen_rbee.tasks.records import body_parameters, request_parameters

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from queen_rbee.tasks.task import Task

OPERATIONS = {
    "chat": "chat",
    "completions": "text_completion",
    "completion": "text_completion",
    "embeddings": "embeddings",
    "rerank": "rerank",
}
"""gen_ai.operation.name by endpoint; the conventions have no name for rerank."""
PROVIDERS = {"llamacpp": "llama_cpp"}
"""gen_ai.provider.name by kind of engine, where it is not the kind's own name."""
PARAMETERS = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}
"""Attributes of a call by the name of the client's parameter."""


class TaskTrace:
    """Of one task that the sampler chose. `parent` is the span of the request that brought the task."""

    def __init__(self, tracer: Tracer, parent: "Span | Context | None", queued: "Span") -> None:
        self._tracer = tracer
        self._parent = parent
        self._queued = queued
        self._placing: Span | None = None
        self._dispatched: Span | None = None
        self._call: Span | None = None
        self._attempts = 0

    @property
    def exemplar(self) -> dict[str, str]:
        """Labels that lead from a measurement to this trace."""
        return {"trace_id": f"{self._queued.get_span_context().trace_id:032x}"}

    def placed(self, target: Candidate, queue_depth: int) -> None:
        """The task leaves the queue for `target`, or its last replica for another."""
        self._attempts += 1
        self._queued.end()
        place = given(
            {
                "llama_orch.pool.id": target.pool_id,
                "llama_orch.replica.id": target.replica_id,
                "llama_orch.node.id": target.node_id,
                "llama_orch.attempt": self._attempts,
            }
        )
        depth: Attributes = {"llama_orch.queue.depth": queue_depth}
        self._placing = self._tracer.start("llama_orch.placement", self._parent, {**place, **depth})
        self._dispatched = self._tracer.start("llama_orch.dispatch", self._parent, place)

    def placement_done(self, kv_warmth: bool | None) -> None:
        """`kv_warmth`: whether the session's last turn ran there; None without a session."""
        if self._placing:
            if kv_warmth is not None:
                self._placing.set_attribute("llama_orch.kv_warmth", kv_warmth)
            self._placing.end()

    def loaded(self, began_at: float, ended_at: float, *, submitted_at: float) -> None:
        """The model was last loaded between these times, on trio's clock: part of the wait if the task was there."""
        if ended_at <= submitted_at:
            return
        span = self._tracer.start("llama_orch.load", self._queued, start_ns=_epoch_ns(began_at))
        span.end(_epoch_ns(ended_at))

    def call(self, task: "Task", target: Candidate) -> Mapping[str, str]:
        """The request goes to the engine; return the headers that make the engine's spans children of this call."""
        self._end_call("repeated")
        operation = OPERATIONS[task.demand.endpoint]
        model = public_name(served_name(target, task.request.model_ref) or "unknown")
        self._call = self._tracer.start(
            f"{operation} {model}", self._dispatched, _call_attributes(task, target, operation, model), kind="client"
        )
        return self._tracer.headers(self._call)

    def attempt_failed(self, reason: str) -> None:
        """The attempt ends, and the task continues elsewhere or waits."""
        self._end_call(reason)
        if self._dispatched:
            fail(self._dispatched, reason)
            self._dispatched.end()
            self._dispatched = None

    def waits_again(self) -> None:
        """The task is back in the queue."""
        self._queued = self._tracer.start("llama_orch.queue", self._parent, {"llama_orch.attempt": self._attempts + 1})

    def end(self, task: "Task") -> None:
        """End all spans. A task that has not ended will run again after a restart of queen-rbee."""
        reason = (task.error.code if task.error else None) if task.state.final else "suspended"
        measured = task.measurements
        if self._call:
            counts: dict[str, float | None] = {
                "gen_ai.usage.input_tokens": measured.tokens_in or None,
                "gen_ai.usage.output_tokens": measured.tokens_out,
                "gen_ai.usage.cache_read.input_tokens": measured.tokens_cached,
            }
            if measured.first_token_at is not None and measured.sent_at is not None:
                counts["gen_ai.response.time_to_first_chunk"] = round(measured.first_token_at - measured.sent_at, 6)
            self._call.set_attributes(given(counts))
        self._end_call(reason)
        if self._dispatched and measured.first_token_at is not None:
            began_ns = _epoch_ns(measured.first_token_at)
            self._tracer.start("llama_orch.relay", self._dispatched, start_ns=began_ns).end()
        last = self._dispatched or self._queued
        last.set_attributes({"llama_orch.task.state": task.state.value})
        if reason:
            fail(last, reason)
        last.end()

    def _end_call(self, reason: str | None) -> None:
        if self._call:
            if reason:
                fail(self._call, reason)
            self._call.end()
            self._call = None


def trace_of(task: "Task") -> TaskTrace | None:
    """Return the trace of a task that enters the queue; None without traces, or if the sampler does not choose it."""
    tracer = active.get()
    if tracer is None:
        return None
    request = current.get()
    parent = request or (tracer.remote({"traceparent": task.traceparent}) if task.traceparent else None)
    attributes = given(
        {
            "llama_orch.task.id": str(task.task_id),
            "llama_orch.job.id": str(task.job_id),
            "llama_orch.priority": task.request.priority,
            "llama_orch.generation": task.generation or None,
        }
    )
    if request and request.is_recording():
        tracer.start("llama_orch.admission", parent, start_ns=start_ns(request)).end()
    queued = tracer.start("llama_orch.queue", parent, attributes)
    return TaskTrace(tracer, parent, queued) if queued.is_recording() else None


def _call_attributes(task: "Task", target: Candidate, operation: str, model: str) -> Attributes:
    given_parameters = request_parameters(task.request) | (body_parameters(task.passage.body) if task.passage else {})
    parameters = {
        PARAMETERS[name]: value
        for name, value in given_parameters.items()
        if name in PARAMETERS and isinstance(value, (int, float))
    }
    url = urlsplit(target.url)
    own = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDERS.get(target.engine, target.engine),
        "gen_ai.request.model": model,
        "gen_ai.request.stream": True if operation in ("chat", "text_completion") else None,
        "gen_ai.conversation.id": str(task.request.session_id) if task.request.session_id else None,
        "server.address": url.hostname,
        "server.port": url.port,
    }
    return {**parameters, **given(own)}


def _epoch_ns(at: float) -> int:
    """Convert a time of trio's clock."""
    return time.time_ns() - round((trio.current_time() - at) * 1e9)
