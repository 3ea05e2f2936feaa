"""Calls of OpenAI's endpoints: a client's request passed through, or the prompt of a task."""

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import AnswerPart, Finished, StreamChunk, TextPiece, WholeAnswer
from llama_orch.engines.wire.client_view import ClientView
from llama_orch.engines.wire.openai_stream import Choices, OpenAiStream, counts_of, one_line
from llama_orch.engines.wire.parsing import count, json_object, refusal_of_event, table, text, without_numbers
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.engines.wire.sliced_json import sliced

PATHS: Mapping[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
}
UNSTREAMED: frozenset[Endpoint] = frozenset({"embeddings", "rerank"})
STREAM_OPTIONS: Mapping[str, JsonValue] = {"stream": True, "stream_options": {"include_usage": True}}


class OpenAiPassage(OpenAiStream):
    """A client's request to an OpenAI endpoint, passed through, and its answer.

    With `n`, or several prompts, an answer has several choices. It has one lease nevertheless: the engine decides how
    to spread them over its slots.
    """

    def __init__(
        self,
        passage: Passage,
        model: str | None,
        defaults: Mapping[str, JsonValue] | None = None,
        stream_options: Mapping[str, JsonValue] = STREAM_OPTIONS,
    ) -> None:
        """`defaults` are fields that the client's body may override. `model`, if known, replaces the client's name.

        `stream_options` are fields of streamed requests.
        """
        super().__init__(choices_asked(passage.body))
        self.path = PATHS[passage.endpoint]
        self.streamed = passage.endpoint not in UNSTREAMED
        self._view = ClientView(passage)
        body = {name: value for name, value in passage.body.items() if name not in STREAM_OPTIONS}
        stream = _merged_options(stream_options, passage.body) if self.streamed else {}
        self.body = b"".join(sliced({**(defaults or {}), **body, **stream, **_model_field(model)}))

    def whole(self, body: bytes) -> Sequence[AnswerPart]:
        """Parse the document and its counts."""
        document = json_object(without_numbers(body))
        if document.get("error") is not None or document.get("object") == "error":
            return [refusal_of_event(document)]
        counted = counts_of(document.get("usage"))
        return [WholeAnswer(self._view(one_line(body.decode()))), Finished(counted.tokens_in or 0, 0, counted.cached)]

    def _parts(self, choices: Choices, data: str) -> Sequence[AnswerPart]:
        tokens = int(_has_content(choices[0])) if len(choices) == 1 else sum(map(_has_content, choices))
        return [StreamChunk(self._view(one_line(data)), tokens)]

    def _usage_only(self, data: str) -> Sequence[AnswerPart]:
        return [StreamChunk(self._view(one_line(data)), usage=True)]


class OpenAiPrompt(OpenAiStream):
    """A task's prompt for /v1/completions. Only the text of its chunks is used."""

    path = PATHS["completions"]

    def __init__(self, request: TaskRequest, model: str | None, extra: Mapping[str, JsonValue]) -> None:
        """`extra` are fields beyond OpenAI's own parameters."""
        super().__init__(choices=1)
        body: dict[str, JsonValue] = {"prompt": request.prompt}
        body |= without_none(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=list(request.stop) or None,
        )
        self.body = encoded({**body, **extra, **STREAM_OPTIONS, **_model_field(model)})

    def _parts(self, choices: Choices, _data: str) -> Sequence[AnswerPart]:
        return [TextPiece(text(choices[0].get("text")))]


def without_none(**parameters: JsonValue) -> dict[str, JsonValue]:
    """Return the parameters that have a value; the engine's defaults apply to the others."""
    return {name: value for name, value in parameters.items() if value is not None}


def passage_defaults(request: TaskRequest, passage: Passage) -> dict[str, JsonValue]:
    """Return the task's parameters that apply if the body does not set them."""
    return {} if passage.endpoint in UNSTREAMED else without_none(seed=request.seed)


def encoded(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _merged_options(ours: Mapping[str, JsonValue], body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return `ours`, merged with the client's stream_options."""
    clients, required = body.get("stream_options") if body.get("stream") else None, ours.get("stream_options")
    if not isinstance(clients, dict):
        return ours
    return {**ours, "stream_options": {**clients, **(required if isinstance(required, dict) else {})}}


def _model_field(model: str | None) -> dict[str, JsonValue]:
    return {} if model is None else {"model": model}


def choices_asked(body: Mapping[str, JsonValue]) -> int:
    """Return how many answers a body asks for: `n` for each prompt. A list of numbers is one prompt in tokens."""
    prompt, each = body.get("prompt"), choices_per_prompt(body)
    several = isinstance(prompt, list) and all(isinstance(one, str | list) for one in prompt)
    return each * len(prompt) if several and isinstance(prompt, list) else each


def choices_per_prompt(body: Mapping[str, JsonValue]) -> int:
    """Return how many answers a body asks for per prompt."""
    return count(body.get("n")) or 1


def _has_content(choice: Mapping[str, object]) -> bool:
    """Whether a choice contains a part of the answer of any kind. Engines send one chunk per token."""
    delta = table(choice.get("delta"))
    if delta.get("content") or choice.get("text"):
        return True
    return any(value for name, value in delta.items() if name != "role")
