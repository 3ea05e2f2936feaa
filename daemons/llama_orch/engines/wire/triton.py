"""Triton Inference Server's wire format: prompts by its generate extension, for all of its LLM back ends.

POST /v2/models/MODEL/generate_stream (docs/protocol/extension_generate.md of its repository) maps each key of the
request to the model's input of that name, and any other key to a parameter, which must not be a list. So one request
contains the names of all back ends, each of which ignores those of the others:

- vLLM: `stream`, and `sampling_parameters` as JSON in a string. `text_output` is the new text.
- TensorRT-LLM's `ensemble` and `tensorrt_llm_bls` (accumulate_tokens off): `stream`, `max_tokens`, … `text_output` is
  the new text.
- TensorRT-LLM's LLM API: `streaming` and `sampling_param_*`. `text_output` is the whole text so far. Only this one
  supports `return_stop_reason`: its answers are recognised by their `stop_reason`.

`max_tokens` is always sent: TensorRT-LLM requires it, and vLLM would end after 16 tokens. Stop texts would be a list,
so that the answer is cut here instead. Errors midway are `{"error": "…"}`. The answer ends with the stream. Only the
prompt's token count is reported.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import AnswerPart, EngineCall, EngineRefusal, ErrorPatterns, Finished, TextPiece
from llama_orch.engines.wire.errors import classified, pattern
from llama_orch.engines.wire.openai_calls import encoded, without_none
from llama_orch.engines.wire.parsing import count, json_object, refusal_of_event, refusal_of_status
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.engines.wire.stop_texts import StopTexts

MAX_TOKENS = 512
"""For tasks with neither max_tokens nor expected_tokens."""

ERROR_PATTERNS: ErrorPatterns = (
    # TensorRT-LLM and the vLLM back end raise these while they run, so that Triton answers 500
    pattern(r"exceeds maximum input length|maximum (context|sequence) length|max_seq_len", "context_length_exceeded"),
    pattern(r"larger than max_input_len|longer than the maximum model length", "context_length_exceeded"),
    pattern(
        r"unexpected inference input|expected \d+ inputs but got|invalid (datatype|shape)|Expected batch dimension"
    ),
    pattern(r"unexpected datatype|failed to parse the request JSON|[Ii]nvalid sampling"),
)


class Triton:
    """The adapter for Triton."""

    endpoints: frozenset[Endpoint] = frozenset({"completion"})
    error_patterns = ERROR_PATTERNS

    def call(self, request: TaskRequest, passage: Passage | None, model: str | None) -> EngineCall:
        """Build a prompt for `model`. Raises ValueError if it is not known which model is meant."""
        if model is None:
            raise ValueError("the pool has several models, or does not report them; set model_ref to one of them")
        return TritonGeneration(request, model)

    def refusal(self, status: int, body: bytes) -> EngineRefusal:
        """Parse `{"error": "…"}`."""
        return classified(refusal_of_status(status, body), self.error_patterns)


class TritonGeneration:
    """A streamed generate request."""

    streamed = True

    def __init__(self, request: TaskRequest, model: str) -> None:
        self.path = f"/v2/models/{quote(model, safe='')}/generate_stream"
        self.body = encoded(_inputs(request))
        self._stops = StopTexts(request.stop)
        self._so_far = ""
        self._begun = False
        self._tokens_in: int | None = None

    def event(self, data: str) -> Sequence[AnswerPart]:
        """Parse one response, or an error. Raises ValueError for anything else."""
        event = json_object(data)
        if event.get("error") is not None:
            return [refusal_of_event(event)]
        output = event.get("text_output")
        text = output[0] if isinstance(output, list) and output else output
        if not isinstance(text, str):
            raise ValueError("an event has neither `text_output` nor `error`")
        self._begun = True
        self._tokens_in = count(event.get("num_input_tokens")) or self._tokens_in
        shown, stopped = self._stops.feed(self._new(text) if "stop_reason" in event else text)
        return [TextPiece(shown), Finished(self._tokens_in, None)] if stopped else [TextPiece(shown)]

    def whole(self, body: bytes) -> Sequence[AnswerPart]:
        """Always raises ValueError: the request asks for a stream."""
        raise ValueError(f"the engine sent a document of {len(body)} bytes instead of a stream")

    def closed(self) -> Sequence[AnswerPart]:
        """The answer is complete if it has begun."""
        return [TextPiece(self._stops.rest()), Finished(self._tokens_in, None)] if self._begun else []

    def _new(self, so_far: str) -> str:
        """Return the new part of `so_far`. A trailing U+FFFD is an incomplete character, left for the next event."""
        known = so_far.rstrip("\ufffd")
        if not known.startswith(self._so_far):
            if self._so_far.startswith(known):
                return ""
            raise ValueError("the accumulated text does not begin with the previous one")
        new, self._so_far = known[len(self._so_far) :], known
        return new


def _inputs(request: TaskRequest) -> dict[str, JsonValue]:
    max_tokens = request.max_tokens or request.expected_tokens or MAX_TOKENS
    common = without_none(
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        repetition_penalty=request.repeat_penalty,
        seed=request.seed,
    )
    for_vllm = common | without_none(min_p=request.min_p, stop=list(request.stop) or None)
    llm_api = ("max_tokens", "temperature", "top_p", "top_k", "seed")
    return {
        "text_input": request.prompt,
        "stream": True,
        "streaming": True,
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_stop_reason": True,
        **common,
        **without_none(random_seed=request.seed),
        "sampling_parameters": json.dumps(for_vllm),
        **{f"sampling_param_{name}": value for name, value in common.items() if name in llm_api},
    }
