"""The wire format of servers of OpenAI's API (LM Studio, SGLang, llama-swap, …).

top_k, min_p and repeat_penalty of a task are not passed on, and rerank is not served: the API has none of them. The
length of an answer without `max_tokens` is up to the server; OpenAI's default is 16 tokens.
"""

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire import llamacpp, vllm
from llama_orch.engines.wire.adapter import EngineCall, EngineRefusal, ErrorPatterns
from llama_orch.engines.wire.errors import classified
from llama_orch.engines.wire.openai_calls import OpenAiPassage, OpenAiPrompt, passage_defaults
from llama_orch.engines.wire.parsing import refusal_of_status
from llama_orch.engines.wire.passage import Endpoint, Passage


class OpenAiHttp:
    """The adapter for servers of OpenAI's API."""

    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions", "embeddings"})
    error_patterns: ErrorPatterns = (*llamacpp.ERROR_PATTERNS, *vllm.ERROR_PATTERNS)
    """One of these often runs behind OpenAI's API (llama-swap, SGLang, LM Studio)."""

    def call(self, request: TaskRequest, passage: Passage | None, model: str | None) -> EngineCall:
        """Put prompts to /v1/completions."""
        if passage is None:
            return OpenAiPrompt(request, model, {})
        return OpenAiPassage(passage, model, passage_defaults(request, passage))

    def refusal(self, status: int, body: bytes) -> EngineRefusal:
        """Parse an error body of any known shape."""
        return classified(refusal_of_status(status, body), self.error_patterns)
