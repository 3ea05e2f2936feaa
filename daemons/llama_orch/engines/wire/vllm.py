"""vLLM's OpenAI-compatible server: prompts by /v1/completions, OpenAI's endpoints and /v1/rerank as they are.

As its sources (releases 0.6 to 0.11) have it: `model` must be the served name, or the answer is 404; without
`max_tokens` /v1/completions ends after 16 tokens, and with null where the context ends. Errors are
`{"object": "error", "message", "type", "code"}` or, newer, `{"error": {…}}`; midway the same as an event, then [DONE].
"""

from collections.abc import Mapping

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import Dialogue, Refused
from llama_orch.engines.wire.errors import VLLM, judged
from llama_orch.engines.wire.openai_wire import TOLD_TO_STREAM, OpenAiPassage, OpenAiPrompt, for_passage, stated
from llama_orch.engines.wire.parsing import refusal
from llama_orch.engines.wire.passage import Endpoint, Passage

COUNTS_FIRST: Mapping[str, JsonValue] = {
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}
"""For clients that are told the prompt's tokens before the answer: each chunk has the counts so far."""


class Vllm:
    """The adapter for vLLM."""

    name = "vllm"
    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions", "embeddings", "rerank"})
    complaints = VLLM

    def dialogue(self, request: TaskRequest, passage: Passage | None, model: str | None) -> Dialogue:
        """Everything is OpenAI's format, with vLLM's own sampling parameters for prompts."""
        if passage is None:
            return OpenAiPrompt(request, model, _besides(request))
        told = COUNTS_FIRST if passage.counts_first else TOLD_TO_STREAM
        return OpenAiPassage(passage, model, for_passage(request, passage), told)

    def refusal(self, status: int, body: bytes) -> Refused:
        """An error body of one of its two shapes, or FastAPI's own `{"detail": …}`."""
        return judged(refusal(status, body), self.complaints)


def _besides(request: TaskRequest) -> dict[str, JsonValue]:
    sampling = stated(top_k=request.top_k, min_p=request.min_p, repetition_penalty=request.repeat_penalty)
    return {"max_tokens": request.max_tokens, **sampling}
