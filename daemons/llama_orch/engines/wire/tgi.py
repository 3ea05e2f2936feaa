"""Hugging Face's Text Generation Inference: prompts by /generate_stream, chat and completions by its Messages API.

As its router's sources (releases 2 and 3) have it: an event for each token,
`data:{"token": {"text", "special"}, "generated_text": null, "details": null}`, the last one with the whole text and
`details` (`input_length` since release 2.1). Errors midway are `data:{"error": "…", "error_type": "…"}`, and so are
those before, in a stream of status 200. Comments keep it alive. Bounds differ from ours: `temperature` and `top_k` are
above 0, `top_p` is between 0 and 1. The text of a stop sequence is part of the answer. min_p is not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import Dialogue, Finished, Piece, Refused, Said
from llama_orch.engines.wire.errors import TGI, judged
from llama_orch.engines.wire.openai_wire import OpenAiPassage, encoded, for_passage, stated
from llama_orch.engines.wire.parsing import count, json_object, refusal, refused, table, text
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.engines.wire.stop_texts import StopTexts

BASE_MODEL = "tgi"
"""Any other `model` is taken for the name of a LoRA adapter."""


class Tgi:
    """The adapter for TGI."""

    name = "tgi"
    endpoints: frozenset[Endpoint] = frozenset({"completion", "chat", "completions"})
    complaints = TGI

    def dialogue(self, request: TaskRequest, passage: Passage | None, model: str | None) -> Dialogue:
        """A server has one model; a passage is passed on without what TGI would refuse."""
        if passage is None:
            return Generation(request)
        body = {name: value for name, value in passage.body.items() if (name, value) != ("top_p", 1)}
        return OpenAiPassage(replace(passage, body=body), BASE_MODEL, for_passage(request, passage))

    def refusal(self, status: int, body: bytes) -> Refused:
        """An error body `{"error": "…", "error_type": "…"}`: 422 of a wrong request, 429 overloaded, 424 failed."""
        return judged(refusal(status, body), self.complaints)


class Generation:
    """A streamed /generate_stream."""

    path = "/generate_stream"
    streamed = True

    def __init__(self, request: TaskRequest) -> None:
        self.body = encoded({"inputs": request.prompt, "parameters": _parameters(request)})
        self._stops = StopTexts(request.stop)

    def event(self, data: str) -> Sequence[Said]:
        """One token, the last one, or an error. Raises ValueError for anything else."""
        event = json_object(data)
        token = event.get("token")
        if not isinstance(token, dict):
            if event.get("error") is None:
                raise ValueError("an event has neither a token nor an error")
            return [refused(event)]
        shown, stopped = self._stops.feed("" if token.get("special") else text(token.get("text")))
        if event.get("generated_text") is None and not stopped:
            return [Piece(shown)]
        return [Piece(shown if stopped else shown + self._stops.rest()), _finished(event)]

    def whole(self, body: bytes) -> Sequence[Said]:
        """Never asked for."""
        raise ValueError(f"a document of {len(body)} bytes came in place of a stream")

    def closed(self) -> Sequence[Said]:
        """A stream ends with `generated_text` or it is broken."""
        return []


def _parameters(request: TaskRequest) -> dict[str, JsonValue]:
    """The task's parameters in TGI's terms; temperature or top_p of 0 means the likeliest token each time."""
    temperature, top_p = request.temperature, request.top_p
    greedy = temperature == 0 or top_p == 0
    sampling = stated(
        do_sample=False if greedy else None if temperature is None else True,
        temperature=None if greedy else temperature,
        top_p=top_p if top_p is not None and 0 < top_p < 1 and not greedy else None,
        top_k=request.top_k or None,
        repetition_penalty=request.repeat_penalty or None,
        seed=request.seed,
    )
    ending = stated(max_new_tokens=request.max_tokens, stop=list(request.stop) or None)
    return {"details": True, **sampling, **ending}


def _finished(event: Mapping[str, object]) -> Finished:
    details = table(event.get("details"))
    return Finished(count(details.get("input_length")), count(details.get("generated_tokens")))
