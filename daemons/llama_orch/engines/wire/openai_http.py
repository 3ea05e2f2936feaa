"""Any server that speaks OpenAI's API (LM Studio, SGLang, llama-swap, …): nothing but what that API has.

So top_k, min_p and repeat_penalty of a task are not passed on, and rerank is not served. How long an answer without
`max_tokens` gets is the server's own decision; OpenAI's default is 16 tokens.
"""

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import Dialogue, Refused
from llama_orch.engines.wire.errors import OPENAI_HTTP, judged
from llama_orch.engines.wire.openai_wire import OpenAiPassage, OpenAiPrompt, for_passage
from llama_orch.engines.wire.parsing import refusal
from llama_orch.engines.wire.passage import Endpoint, Passage


class OpenAiHttp:
    """The adapter for servers of OpenAI's API."""

    name = "openai-http"
    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions", "embeddings"})
    complaints = OPENAI_HTTP

    def dialogue(self, request: TaskRequest, passage: Passage | None, model: str | None) -> Dialogue:
        """Prompts go to /v1/completions, passages where they belong."""
        if passage is None:
            return OpenAiPrompt(request, model, {})
        return OpenAiPassage(passage, model, for_passage(request, passage))

    def refusal(self, status: int, body: bytes) -> Refused:
        """An error body of any of the shapes in use."""
        return judged(refusal(status, body), self.complaints)
