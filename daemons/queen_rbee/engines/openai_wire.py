"""OpenAI's wire format, which most engines speak: chat and text completions as a stream, embeddings and rerank whole.

Measured with llama-server (build 11669), and as vLLM and TGI have it in their sources: `data: {…}` chunks, of which one
without choices, or the last one with them, has the `usage` that `stream_options.include_usage` asks for, then
`data: [DONE]`. An error midway is an event with `error`, or with `"object": "error"` in older vLLM.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.engines.adapter import Chunk, Finished, Piece, Refused, Result, Said
from queen_rbee.engines.reading import count, json_object, refused, table, text
from queen_rbee.passage import Endpoint, Passage

PATHS: Mapping[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
}
WHOLE: frozenset[Endpoint] = frozenset({"embeddings", "rerank"})
TOLD_TO_STREAM: dict[str, JsonValue] = {"stream": True, "stream_options": {"include_usage": True}}
EMPTY = Refused("the engine ended its answer without having begun it; its own log may say why", client_fault=False)
"""TGI drops an error in a chat stream and sends [DONE] alone."""


class OpenAiStream(ABC):
    """The reading of one stream; what the choices of a chunk mean for the task is told by the two kinds of it."""

    streamed = True

    def __init__(self, choices: int) -> None:
        """`choices`: how many answers were asked for."""
        self._counts = Finished(None, None)
        self._unfinished = choices
        self._begun = False

    def event(self, data: str) -> Sequence[Said]:
        """One chunk, or the end."""
        if data == "[DONE]":
            return [self._counts if self._begun else EMPTY]
        if data == "null":  # llama-server's first words where it was given several prompts
            return []
        chunk = json_object(data)
        choices = chunk.get("choices")
        if chunk.get("error") is not None or chunk.get("object") == "error":
            return [refused(chunk)]
        if usage := chunk.get("usage"):
            self._counts = counts_of(usage)
        if not isinstance(choices, list) or not choices:
            return self._aside(data) if usage else []
        self._begun = True
        self._unfinished -= sum(1 for choice in choices if table(choice).get("finish_reason"))
        return self._said(choices, data)

    def whole(self, body: bytes) -> Sequence[Said]:
        """Never asked for."""
        raise ValueError(f"a document of {len(body)} bytes came in place of a stream")

    def closed(self) -> Sequence[Said]:
        """Some servers leave [DONE] out: what has its finish_reason is complete."""
        return [self._counts] if self._unfinished <= 0 else []

    @abstractmethod
    def _said(self, choices: list[object], data: str) -> Sequence[Said]:
        """What a chunk with choices means."""

    def _aside(self, _data: str) -> Sequence[Said]:
        """A chunk with nothing but counts."""
        return []


class OpenAiPassage(OpenAiStream):
    """A client's request to an OpenAI endpoint, passed on, and its answer as it comes."""

    def __init__(self, passage: Passage, model: str | None, defaults: Mapping[str, JsonValue] | None = None) -> None:
        """`defaults` are for what the body does not say; `model`, if known, is said whatever the client called it."""
        super().__init__(_choices(passage.body))
        self.path = PATHS[passage.endpoint]
        self.streamed = passage.endpoint not in WHOLE
        body: dict[str, JsonValue] = {**(defaults or {}), **passage.body}
        for name in TOLD_TO_STREAM:
            body.pop(name, None)
        self.body = encoded(body | (TOLD_TO_STREAM if self.streamed else {}) | _named(model))

    def whole(self, body: bytes) -> Sequence[Said]:
        """The document and its counts."""
        document = json_object(body)
        if document.get("error") is not None or document.get("object") == "error":
            return [refused(document)]
        counted = counts_of(document.get("usage"))
        return [Result(one_line(body.decode())), Finished(counted.tokens_in or 0, 0, counted.cached)]

    def _said(self, choices: list[object], data: str) -> Sequence[Said]:
        return [Chunk(one_line(data), sum(_speaks(table(choice)) for choice in choices))]

    def _aside(self, data: str) -> Sequence[Said]:
        return [Chunk(one_line(data), usage=True)]


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

    def _said(self, choices: list[object], _data: str) -> Sequence[Said]:
        return [Piece(text(table(choices[0]).get("text")))]


def stated(**parameters: JsonValue) -> dict[str, JsonValue]:
    """The parameters that have a value: what a request does not say is left to the engine's own defaults."""
    return {name: value for name, value in parameters.items() if value is not None}


def for_passage(request: TaskRequest, passage: Passage) -> dict[str, JsonValue]:
    """What the task says and an OpenAI body can: it counts where the body says nothing."""
    return {} if passage.endpoint in WHOLE else stated(seed=request.seed)


def encoded(body: Mapping[str, JsonValue]) -> bytes:
    """`body` as an HTTP body."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def one_line(data: str) -> str:
    """JSON in one line, as events need it: a line break can only be between its tokens."""
    return data if "\n" not in data and "\r" not in data else data.replace("\r", " ").replace("\n", " ")


def counts_of(usage: object) -> Finished:
    """OpenAI's `usage`; a reranker of vLLM tells the total only."""
    said = table(usage)
    tokens_in, tokens_out = count(said.get("prompt_tokens")), count(said.get("completion_tokens"))
    cached = count(table(said.get("prompt_tokens_details")).get("cached_tokens"))
    return Finished(count(said.get("total_tokens")) if tokens_in is None else tokens_in, tokens_out, cached)


def _named(model: str | None) -> dict[str, JsonValue]:
    return {} if model is None else {"model": model}


def _choices(body: Mapping[str, JsonValue]) -> int:
    """How many answers a body asks for: `n` for each prompt; a list of numbers is one prompt in tokens."""
    prompt, each = body.get("prompt"), count(body.get("n")) or 1
    several = isinstance(prompt, list) and all(isinstance(one, str | list) for one in prompt)
    return each * len(prompt) if several and isinstance(prompt, list) else each


def _speaks(choice: Mapping[str, object]) -> bool:
    """Whether a choice brings a part of the answer, of whatever kind; engines send a chunk a token."""
    delta = table(choice.get("delta"))
    if delta.get("content") or choice.get("text"):
        return True
    return any(value for name, value in delta.items() if name != "role")
