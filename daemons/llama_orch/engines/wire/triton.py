"""NVIDIA's Triton Inference Server: prompts by its generate extension, for the LLM back ends that it has.

POST /v2/models/MODEL/generate_stream (docs/protocol/extension_generate.md of its repository) makes each key of the
request that is an input of the model into that input, and any other into a parameter, which must be no list. So one
request holds the names of all back ends, each of which overlooks those of the others:

- vLLM's: `stream`, and `sampling_parameters` as JSON in a text. `text_output` is what is new.
- TensorRT-LLM's `ensemble` and `tensorrt_llm_bls` (accumulate_tokens off): `stream`, `max_tokens`, … `text_output` is
  what is new.
- TensorRT-LLM's LLM API: `streaming` and `sampling_param_*`. `text_output` is the whole text so far. Only this one
  knows `return_stop_reason`, and answers with `stop_reason`: that is how it is told from the others.

`max_tokens` is always said: TensorRT-LLM demands it, and vLLM would end after 16 tokens. Stop texts are a list, so that
the answer is ended here instead. Errors midway are `{"error": "…"}`; the answer ends where the stream does; of counts
only that of the prompt is told.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import Dialogue, Finished, Piece, Refused, Said
from llama_orch.engines.wire.errors import TRITON, judged
from llama_orch.engines.wire.openai_wire import encoded, stated
from llama_orch.engines.wire.parsing import count, json_object, refusal, refused
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.engines.wire.stop_texts import StopTexts

MAX_TOKENS = 512
"""Where a task gives neither max_tokens nor expected_tokens."""


class Triton:
    """The adapter for Triton."""

    name = "triton"
    endpoints: frozenset[Endpoint] = frozenset({"completion"})
    complaints = TRITON

    def dialogue(self, request: TaskRequest, passage: Passage | None, model: str | None) -> Dialogue:
        """A prompt for `model`. Raises ValueError where it is not known which of its models is meant."""
        if model is None:
            raise ValueError("this pool has several models, or does not tell which: name one in model_ref")
        return Generation(request, model)

    def refusal(self, status: int, body: bytes) -> Refused:
        """An error body `{"error": "…"}`."""
        return judged(refusal(status, body), self.complaints)


class Generation:
    """A streamed generate request."""

    streamed = True

    def __init__(self, request: TaskRequest, model: str) -> None:
        self.path = f"/v2/models/{quote(model, safe='')}/generate_stream"
        self.body = encoded(_inputs(request))
        self._stops = StopTexts(request.stop)
        self._so_far = ""
        self._begun = False
        self._tokens_in: int | None = None

    def event(self, data: str) -> Sequence[Said]:
        """One response, or an error. Raises ValueError for anything else."""
        event = json_object(data)
        if event.get("error") is not None:
            return [refused(event)]
        output = event.get("text_output")
        text = output[0] if isinstance(output, list) and output else output
        if not isinstance(text, str):
            raise ValueError("an event has neither text_output nor an error")
        self._begun = True
        self._tokens_in = count(event.get("num_input_tokens")) or self._tokens_in
        shown, stopped = self._stops.feed(self._new(text) if "stop_reason" in event else text)
        return [Piece(shown), Finished(self._tokens_in, None)] if stopped else [Piece(shown)]

    def whole(self, body: bytes) -> Sequence[Said]:
        """Never asked for."""
        raise ValueError(f"a document of {len(body)} bytes came in place of a stream")

    def closed(self) -> Sequence[Said]:
        """The answer is complete, if there was any."""
        return [Piece(self._stops.rest()), Finished(self._tokens_in, None)] if self._begun else []

    def _new(self, so_far: str) -> str:
        """What `so_far` adds; a character of which there are only some bytes yet shows as U+FFFD, and is waited for."""
        known = so_far.rstrip("\ufffd")
        if not known.startswith(self._so_far):
            if self._so_far.startswith(known):
                return ""
            raise ValueError("the text so far does not begin with the text before")
        new, self._so_far = known[len(self._so_far) :], known
        return new


def _inputs(request: TaskRequest) -> dict[str, JsonValue]:
    max_tokens = request.max_tokens or request.expected_tokens or MAX_TOKENS
    common = stated(
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        repetition_penalty=request.repeat_penalty,
        seed=request.seed,
    )
    for_vllm = common | stated(min_p=request.min_p, stop=list(request.stop) or None)
    llm_api = ("max_tokens", "temperature", "top_p", "top_k", "seed")
    return {
        "text_input": request.prompt,
        "stream": True,
        "streaming": True,
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_stop_reason": True,
        **common,
        **stated(random_seed=request.seed),
        "sampling_parameters": json.dumps(for_vllm),
        **{f"sampling_param_{name}": value for name, value in common.items() if name in llm_api},
    }
