"""The wire format of Text Generation Inference: prompts by /generate_stream, OpenAI's endpoints by its Messages API.

According to its router's sources (releases 2 and 3) there is one event per token,
`data:{"token": {"text", "special"}, "generated_text": null, "details": null}`, the last one with the whole text and
`details` (`input_length` since release 2.1). Errors are `data:{"error": "…", "error_type": "…"}`, in a stream with
status 200 even before the first token. Comments keep the stream alive. Its bounds are narrower than ours: `temperature`
and `top_k` are above 0, `top_p` is between 0 and 1. The answer includes the stop sequence. There is no min_p.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import AnswerPart, EngineCall, EngineRefusal, ErrorPatterns, Finished, TextPiece
from llama_orch.engines.wire.errors import classified, pattern
from llama_orch.engines.wire.openai_calls import OpenAiPassage, encoded, passage_defaults, without_none
from llama_orch.engines.wire.parsing import count, json_object, refusal_of_event, refusal_of_status, table, text
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.engines.wire.stop_texts import StopTexts

BASE_MODEL = "tgi"
"""Any other `model` is taken as the name of a LoRA adapter."""

ERROR_PATTERNS: ErrorPatterns = (
    # errors of its Python shards come as 424 with these words (text-generation-inference 2282)
    pattern(r"`inputs` must have less than|`inputs` tokens \+ `max_new_tokens` must be", "context_length_exceeded"),
    pattern(r"Could not translate the instance|[Gg]rammar (compilation|is not valid)|Invalid grammar"),
    pattern(r"cannot identify image file|[Tt]emplate error"),
)


class Tgi:
    """The adapter for TGI."""

    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions"})
    error_patterns = ERROR_PATTERNS

    def call(self, request: TaskRequest, passage: Passage | None, model: str | None) -> EngineCall:
        """Leave out what TGI would reject: another model's name, and a top_p of 1."""
        if passage is None:
            return TgiGeneration(request)
        body = {name: value for name, value in passage.body.items() if (name, value) != ("top_p", 1)}
        return OpenAiPassage(replace(passage, body=body), BASE_MODEL, passage_defaults(request, passage))

    def refusal(self, status: int, body: bytes) -> EngineRefusal:
        """Parse `{"error": "…", "error_type": "…"}`: 422 is a bad request, 429 overload, 424 a failed generation."""
        return classified(refusal_of_status(status, body), self.error_patterns)


class TgiGeneration:
    """A streamed /generate_stream."""

    path = "/generate_stream"
    streamed = True

    def __init__(self, request: TaskRequest) -> None:
        self.body = encoded({"inputs": request.prompt, "parameters": _parameters(request)})
        self._stops = StopTexts(request.stop)

    def event(self, data: str) -> Sequence[AnswerPart]:
        """Parse a token, the last token, or an error. Raises ValueError for anything else."""
        event = json_object(data)
        token = event.get("token")
        if not isinstance(token, dict):
            if event.get("error") is None:
                raise ValueError("an event has neither `token` nor `error`")
            return [refusal_of_event(event)]
        shown, stopped = self._stops.feed("" if token.get("special") else text(token.get("text")))
        if event.get("generated_text") is None and not stopped:
            return [TextPiece(shown)]
        return [TextPiece(shown if stopped else shown + self._stops.rest()), _finished(event)]

    def whole(self, body: bytes) -> Sequence[AnswerPart]:
        """Always raises ValueError: the request asks for a stream."""
        raise ValueError(f"the engine sent a document of {len(body)} bytes instead of a stream")

    def closed(self) -> Sequence[AnswerPart]:
        """Return nothing: a complete stream ends with `generated_text`."""
        return []


def _parameters(request: TaskRequest) -> dict[str, JsonValue]:
    """Convert the task's parameters; temperature or top_p of 0 means greedy decoding."""
    temperature, top_p = request.temperature, request.top_p
    greedy = temperature == 0 or top_p == 0
    sampling = without_none(
        do_sample=False if greedy else None if temperature is None else True,
        temperature=None if greedy else temperature,
        top_p=top_p if top_p is not None and 0 < top_p < 1 and not greedy else None,
        top_k=request.top_k or None,
        repetition_penalty=request.repeat_penalty or None,
        seed=request.seed,
    )
    ending = without_none(max_new_tokens=request.max_tokens, stop=list(request.stop) or None)
    return {"details": True, **sampling, **ending}


def _finished(event: Mapping[str, object]) -> Finished:
    details = table(event.get("details"))
    return Finished(count(details.get("input_length")), count(details.get("generated_tokens")))
