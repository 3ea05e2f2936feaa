"""llama-server's wire format: POST /completion as a stream for prompts, OpenAI's endpoints for the rest.

Measured with build 11669: `data: {"content": …, "stop": false}` for each piece, a last one with `stop: true`,
`tokens_evaluated` (the whole prompt, cached or not), `tokens_predicted` and `timings.cache_n`, and `data: {"error": …}`
if it fails midway. It answers 503 while it loads, 400 to a prompt that is too long, and 501 to endpoints that it was
not started for, such as embeddings without --embeddings.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import AnswerPart, EngineCall, EngineRefusal, ErrorPatterns, Finished, TextPiece
from llama_orch.engines.wire.errors import classified, pattern
from llama_orch.engines.wire.llamacpp_passage import LlamaCppPassage
from llama_orch.engines.wire.openai_calls import UNSTREAMED, OpenAiPassage, encoded, passage_defaults, without_none
from llama_orch.engines.wire.parsing import count, json_object, refusal_of_event, refusal_of_status, table, text
from llama_orch.engines.wire.passage import Endpoint, Passage

ERROR_PATTERNS: ErrorPatterns = (
    # measured with build 11669; the words are in tools/server/server-context.cpp and server-common.cpp
    pattern(r"^input \(\d+ tokens\) is too large to process", "context_length_exceeded"),
    pattern(r"^input is too large to process", "context_length_exceeded"),  # older releases
    pattern(r"^Context size has been exceeded", "context_length_exceeded"),  # slots that share one cache
    pattern(r"^(image|audio|video) input is not supported"),
    pattern(r"^Failed to (parse (tools|messages|grammar)|initialize samplers|download image|load image)"),
    pattern(r"^Failed to (tokenize prompt|process image|load image or audio file)"),
    pattern(r"^Invalid (url|uri|tool_choice|diff)|^url must be base64 encoded"),
    pattern(r"^Cannot (use both|use custom grammar|specify grammar|have 2 or more assistant|continue an assistant) "),
    pattern(r"^Unknown reasoning format|^tools? param requires|^tool_choice param requires"),
    pattern(
        r"^Pooling type '\w+' is not OAI compatible|^Prompt contains invalid tokens|^Input content cannot be empty"
    ),
    pattern(r"^\[json\.exception\."),  # a field of a wrong type, in releases before the server validated its fields
    pattern(r"Jinja Exception: "),  # what the model's template says of the conversation
)


class LlamaCpp:
    """The adapter for llama-server."""

    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions", "embeddings", "rerank"})
    error_patterns = ERROR_PATTERNS

    def call(self, request: TaskRequest, passage: Passage | None, model: str | None) -> EngineCall:
        """Build the request without `model`: the server has one, and ignores the name."""
        if passage is None:
            return LlamaCppCompletion(request)
        if passage.endpoint in UNSTREAMED:
            return OpenAiPassage(passage, None, passage_defaults(request, passage))
        return LlamaCppPassage(passage, passage_defaults(request, passage) | _caching(request))

    def refusal(self, status: int, body: bytes) -> EngineRefusal:
        """Parse `{"error": {code, message, type}}`, or any other body."""
        return classified(refusal_of_status(status, body), self.error_patterns)


class LlamaCppCompletion:
    """A streamed /completion."""

    path = "/completion"
    streamed = True

    def __init__(self, request: TaskRequest) -> None:
        body: dict[str, JsonValue] = {"prompt": request.prompt, "stream": True}
        body |= without_none(
            n_predict=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            repeat_penalty=request.repeat_penalty,
            seed=request.seed,
            stop=list(request.stop) or None,
        )
        self.body = encoded(body | _caching(request))

    def event(self, data: str) -> Sequence[AnswerPart]:
        """Parse one event. Raises ValueError for another format than the one above."""
        event = json_object(data)
        content = event.get("content")
        if isinstance(content, str) and not event.get("stop"):
            return [TextPiece(content)]
        if event.get("error") is not None:
            return [refusal_of_event(event)]
        if not event.get("stop"):
            raise ValueError("an event has neither `content` nor `error`")
        return [TextPiece(text(content)), _finished(event)]

    def whole(self, body: bytes) -> Sequence[AnswerPart]:
        """Always raises ValueError: the request asks for a stream."""
        raise ValueError(f"the engine sent a document of {len(body)} bytes instead of a stream")

    def closed(self) -> Sequence[AnswerPart]:
        """Return nothing: a complete stream ends with a `stop` event."""
        return []


def _finished(event: dict[str, object]) -> Finished:
    cached = count(table(event.get("timings")).get("cache_n"))
    return Finished(count(event.get("tokens_evaluated")), count(event.get("tokens_predicted")), cached)


def _caching(request: TaskRequest) -> dict[str, JsonValue]:
    """Whether the prefix cache may be used.

    Not with strict determinism: a cached prefix was computed in batches of other sizes, with other rounding.
    """
    if request.determinism == "strict":
        return {"cache_prompt": False}
    return without_none(cache_prompt=None if request.kv_hint is None else request.kv_hint == "reuse")
