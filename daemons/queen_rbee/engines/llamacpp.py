"""llama.cpp's llama-server: POST /completion as a stream.

Wire format as measured with build 11669: `data: {"content": …, "stop": false}` for each piece, a last one with
`stop: true`, `tokens_evaluated` and `tokens_predicted`, and `error: {…}` or `data: {"error": …}` when it fails midway.
"""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.engines.adapter import Ask, Finished, Piece, Refused

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed")


class _Error(BaseModel):
    model_config = ConfigDict(extra="ignore")
    code: int = 500
    message: str = "no reason given"
    type: str = ""


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore")
    content: str = ""
    stop: bool = False
    tokens_evaluated: int = 0
    tokens_predicted: int = 0
    error: _Error | None = None


class LlamaCpp:
    """The adapter for llama-server."""

    name = "llamacpp"

    def ask(self, request: TaskRequest) -> Ask:
        """A streamed /completion; what the request does not say is left to the engine's own defaults."""
        body: dict[str, Any] = {"prompt": request.prompt, "stream": True}
        body |= {key: value for key in SAMPLING if (value := getattr(request, key)) is not None}
        if request.max_tokens is not None:
            body["n_predict"] = request.max_tokens
        if request.stop:
            body["stop"] = list(request.stop)
        if request.kv_hint is not None:
            body["cache_prompt"] = request.kv_hint == "reuse"
        if request.determinism == "strict":  # a cached prefix is computed in other batch sizes, so it is left out
            body["cache_prompt"] = False
        return Ask("/completion", json.dumps(body).encode())

    def event(self, data: str) -> Piece | Finished | Refused:
        """One event of the stream. Raises ValueError for anything else than the format above."""
        event = _Event.model_validate_json(data)
        if event.error:
            return Refused(event.error.message, 400 <= event.error.code < 500)
        if event.stop:
            return Finished(event.tokens_evaluated, event.tokens_predicted)
        return Piece(event.content)

    def refusal(self, status: int, body: bytes) -> Refused:
        """An error body `{"error": {code, message, type}}`, or whatever came instead."""
        try:
            message = _Error.model_validate(json.loads(body)["error"]).message
        except (ValueError, KeyError, TypeError, ValidationError):
            message = body[:200].decode(errors="replace") or f"status {status}"
        return Refused(message, 400 <= status < 500)
