"""llama.cpp's llama-server: POST /completion as a stream for prompts, OpenAI's endpoints for the rest.

Wire format as measured with build 11669: `data: {"content": …, "stop": false}` for each piece, a last one with
`stop: true`, `tokens_evaluated` (the whole prompt, cached or not), `tokens_predicted` and `timings.cache_n`, and
`data: {"error": …}` when it fails midway. While it loads it answers 503, to a prompt that is too long 400, and 501 to
what it was not started for, say embeddings without --embeddings.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import Dialogue, Finished, Piece, Refused, Said
from llama_orch.engines.wire.errors import LLAMACPP, judged
from llama_orch.engines.wire.llamacpp_passage import LlamaCppPassage
from llama_orch.engines.wire.openai_wire import WHOLE, OpenAiPassage, encoded, for_passage, stated
from llama_orch.engines.wire.parsing import count, json_object, refusal, refused, table, text
from llama_orch.engines.wire.passage import Endpoint, Passage


class LlamaCpp:
    """The adapter for llama-server."""

    name = "llamacpp"
    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions", "embeddings", "rerank"})
    complaints = LLAMACPP

    def dialogue(self, request: TaskRequest, passage: Passage | None, model: str | None) -> Dialogue:
        """A passage is passed on; the server has one model, whatever the client calls it."""
        if passage is None:
            return Completion(request)
        if passage.endpoint in WHOLE:
            return OpenAiPassage(passage, None, for_passage(request, passage))
        return LlamaCppPassage(passage, for_passage(request, passage) | _caching(request))

    def refusal(self, status: int, body: bytes) -> Refused:
        """An error body `{"error": {code, message, type}}`, or whatever came instead."""
        return judged(refusal(status, body), self.complaints)


class Completion:
    """A streamed /completion."""

    path = "/completion"
    streamed = True

    def __init__(self, request: TaskRequest) -> None:
        body: dict[str, JsonValue] = {"prompt": request.prompt, "stream": True}
        body |= stated(
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

    def event(self, data: str) -> Sequence[Said]:
        """One event of the stream. Raises ValueError for anything else than the format above."""
        event = json_object(data)
        content = event.get("content")
        if isinstance(content, str) and not event.get("stop"):
            return [Piece(content)]
        if event.get("error") is not None:
            return [refused(event)]
        if not event.get("stop"):
            raise ValueError("an event has neither content nor an error")
        return [Piece(text(content)), _finished(event)]

    def whole(self, body: bytes) -> Sequence[Said]:
        """Never asked for."""
        raise ValueError(f"a document of {len(body)} bytes came in place of a stream")

    def closed(self) -> Sequence[Said]:
        """A stream ends with `stop` or it is broken."""
        return []


def _finished(event: dict[str, object]) -> Finished:
    cached = count(table(event.get("timings")).get("cache_n"))
    return Finished(count(event.get("tokens_evaluated")), count(event.get("tokens_predicted")), cached)


def _caching(request: TaskRequest) -> dict[str, JsonValue]:
    """Whether the KV cache may be used: a cached prefix was computed in batches of other sizes, which shows in the
    last digits, so that strict determinism goes without."""
    if request.determinism == "strict":
        return {"cache_prompt": False}
    return stated(cache_prompt=None if request.kv_hint is None else request.kv_hint == "reuse")
