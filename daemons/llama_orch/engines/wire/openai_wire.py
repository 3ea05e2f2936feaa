"""What is put to OpenAI's endpoints, which most engines have: a client's own request, or the prompt of a task."""

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import Chunk, Finished, Piece, Result, Said
from llama_orch.engines.wire.client_view import Shown
from llama_orch.engines.wire.openai_stream import Choices, OpenAiStream, counts_of, one_line
from llama_orch.engines.wire.parsing import count, json_object, refused, table, text, without_numbers
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.engines.wire.sliced_json import sliced

PATHS: Mapping[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
}
WHOLE: frozenset[Endpoint] = frozenset({"embeddings", "rerank"})
TOLD_TO_STREAM: Mapping[str, JsonValue] = {"stream": True, "stream_options": {"include_usage": True}}


class OpenAiPassage(OpenAiStream):
    """A client's request to an OpenAI endpoint, passed on, and its answer as it comes.

    With `n`, or several prompts, one answer has several choices. It has one lease all the same: how an engine spreads
    them over its slots is its own business.
    """

    def __init__(
        self,
        passage: Passage,
        model: str | None,
        defaults: Mapping[str, JsonValue] | None = None,
        told: Mapping[str, JsonValue] = TOLD_TO_STREAM,
    ) -> None:
        """`defaults` are for what the body does not say; `model`, if known, is said whatever the client called it;
        `told` is said where the answer is a stream."""
        super().__init__(asked_choices(passage.body))
        self.path = PATHS[passage.endpoint]
        self.streamed = passage.endpoint not in WHOLE
        self._shown = Shown(passage)
        body = {name: value for name, value in passage.body.items() if name not in TOLD_TO_STREAM}
        stream = _told(told, passage.body) if self.streamed else {}
        self.body = b"".join(sliced({**(defaults or {}), **body, **stream, **_named(model)}))

    def whole(self, body: bytes) -> Sequence[Said]:
        """The document and its counts."""
        document = json_object(without_numbers(body))
        if document.get("error") is not None or document.get("object") == "error":
            return [refused(document)]
        counted = counts_of(document.get("usage"))
        return [Result(self._shown(one_line(body.decode()))), Finished(counted.tokens_in or 0, 0, counted.cached)]

    def _said(self, choices: Choices, data: str) -> Sequence[Said]:
        return [Chunk(self._shown(one_line(data)), sum(map(_speaks, choices)))]

    def _aside(self, data: str) -> Sequence[Said]:
        return [Chunk(self._shown(one_line(data)), usage=True)]


class OpenAiPrompt(OpenAiStream):
    """A prompt put to /v1/completions; its chunks are read for their text alone."""

    path = PATHS["completions"]

    def __init__(self, request: TaskRequest, model: str | None, besides: Mapping[str, JsonValue]) -> None:
        """`besides` is what this engine understands beyond OpenAI's own parameters."""
        super().__init__(choices=1)
        body: dict[str, JsonValue] = {"prompt": request.prompt}
        body |= stated(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=list(request.stop) or None,
        )
        self.body = encoded({**body, **besides, **TOLD_TO_STREAM, **_named(model)})

    def _said(self, choices: Choices, _data: str) -> Sequence[Said]:
        return [Piece(text(choices[0].get("text")))]


def stated(**parameters: JsonValue) -> dict[str, JsonValue]:
    """The parameters that have a value: what a request does not say is left to the engine's own defaults."""
    return {name: value for name, value in parameters.items() if value is not None}


def for_passage(request: TaskRequest, passage: Passage) -> dict[str, JsonValue]:
    """What the task says and an OpenAI body can: it counts where the body says nothing."""
    return {} if passage.endpoint in WHOLE else stated(seed=request.seed)


def encoded(body: Mapping[str, object]) -> bytes:
    """`body` as an HTTP body."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _told(told: Mapping[str, JsonValue], body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """`told`, and what the client wants of a stream besides."""
    wanted, said = body.get("stream_options") if body.get("stream") else None, told.get("stream_options")
    if not isinstance(wanted, dict):
        return told
    return {**told, "stream_options": {**wanted, **(said if isinstance(said, dict) else {})}}


def _named(model: str | None) -> dict[str, JsonValue]:
    return {} if model is None else {"model": model}


def asked_choices(body: Mapping[str, JsonValue]) -> int:
    """How many answers a body asks for: `n` for each prompt; a list of numbers is one prompt in tokens."""
    prompt, each = body.get("prompt"), asked_each(body)
    several = isinstance(prompt, list) and all(isinstance(one, str | list) for one in prompt)
    return each * len(prompt) if several and isinstance(prompt, list) else each


def asked_each(body: Mapping[str, JsonValue]) -> int:
    """How many answers a body asks for to each prompt."""
    return count(body.get("n")) or 1


def _speaks(choice: Mapping[str, object]) -> bool:
    """Whether a choice brings a part of the answer, of whatever kind; engines send a chunk a token."""
    delta = table(choice.get("delta"))
    if delta.get("content") or choice.get("text"):
        return True
    return any(value for name, value in delta.items() if name != "role")
