"""vLLM's wire format: prompts by /v1/completions; OpenAI's endpoints and /v1/rerank are passed through.

According to its sources (releases 0.6 to 0.11): `model` must be the served name, or the answer is 404. Without
`max_tokens` /v1/completions ends after 16 tokens, with null at the end of the context. Errors are
`{"object": "error", "message", "type", "code"}` or, newer, `{"error": {…}}`; midway the same as an event, then [DONE].
"""

from collections.abc import Mapping

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import EngineCall, EngineRefusal, ErrorPatterns
from llama_orch.engines.wire.errors import classified, pattern
from llama_orch.engines.wire.openai_calls import (
    STREAM_OPTIONS,
    OpenAiPassage,
    OpenAiPrompt,
    passage_defaults,
    without_none,
)
from llama_orch.engines.wire.parsing import refusal_of_status
from llama_orch.engines.wire.passage import Endpoint, Passage

COUNTS_FIRST: Mapping[str, JsonValue] = {
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}
"""For clients that get the prompt's token count before the answer: each chunk has the counts so far."""

ERROR_PATTERNS: ErrorPatterns = (
    # its releases answer these with 500 in one and 400 in another (vllm-project/vllm 13976, 11629, 54017)
    pattern(r"maximum context length|longer than the maximum model length", "context_length_exceeded"),
    pattern(r"TemplateError|Conversation roles must alternate|jinja2\.exceptions"),
    pattern(r"cannot identify image file|UnidentifiedImageError|Incorrect padding"),
    pattern(r"At most \d+ (image|audio|video)\S* may be provided"),
    pattern(r"is not a multimodal model|does not support (image|audio|video) input"),
    pattern(r"not supported by (xgrammar|guidance|outlines)|[Ii]nvalid (grammar|JSON schema|regex)"),
)


class Vllm:
    """The adapter for vLLM."""

    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions", "embeddings", "rerank"})
    error_patterns = ERROR_PATTERNS

    def call(self, request: TaskRequest, passage: Passage | None, model: str | None) -> EngineCall:
        """Use OpenAI's format, with vLLM's own sampling parameters for prompts."""
        if passage is None:
            return OpenAiPrompt(request, model, _sampling(request))
        options = COUNTS_FIRST if passage.counts_first else STREAM_OPTIONS
        return OpenAiPassage(passage, model, passage_defaults(request, passage), options)

    def refusal(self, status: int, body: bytes) -> EngineRefusal:
        """Parse one of its two error bodies, or FastAPI's `{"detail": …}`."""
        return classified(refusal_of_status(status, body), self.error_patterns)


def _sampling(request: TaskRequest) -> dict[str, JsonValue]:
    sampling = without_none(top_k=request.top_k, min_p=request.min_p, repetition_penalty=request.repeat_penalty)
    return {"max_tokens": request.max_tokens, **sampling}
