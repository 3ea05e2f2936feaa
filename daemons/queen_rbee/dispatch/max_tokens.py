"""Clamp the max_tokens of /v1 requests to the context that is available, as servers of OpenAI's API do. No I/O.

Coding tools ask for thousands of tokens whatever the model. llama-server ends such an answer where its context ends.
vLLM, SGLang and TGI refuse it and report the prompt's size; such a request is sent again with what fits.
"""

import re
from dataclasses import replace

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from queen_rbee.pools.candidates import demand_of
from queen_rbee.pools.replica_index import Contexts, ReplicaIndex

FIELDS = ("max_tokens", "max_completion_tokens")
CONTEXT = re.compile(r"(?:maximum context length (?:is|of)|`max_new_tokens` must be <=) (\d{1,9})\b")
PROMPT = re.compile(
    r"\b(\d{1,9}) (?:input tokens|`inputs` tokens|in (?:the|your) (?:messages|prompt)|tokens from the input)"
)
"""How vLLM, SGLang, TGI and OpenAI report context size and prompt size when a request does not fit."""


def fit_to_context(request: TaskRequest, passage: Passage, replicas: ReplicaIndex) -> TaskRequest:
    """Clamp `request.max_tokens` to the largest context among suitable replicas, and require that context.

    Return `request` unchanged while no context size is known.
    """
    max_tokens = request.max_tokens
    if max_tokens is None or request.ctx is not None:
        return request
    available = available_context(max_tokens, replicas.contexts(demand_of(request, passage)))
    if available is None:
        return request
    return request.model_copy(update={"max_tokens": min(max_tokens, available), "ctx": available})


def available_context(max_tokens: int, contexts: Contexts) -> int | None:
    """Return the context to require for `max_tokens`, in tokens; None if it is unknown whether they fit."""
    if contexts.largest is not None and contexts.largest >= max_tokens:
        return max_tokens
    return None if contexts.unknown else contexts.largest


def tokens_left(error: str) -> int | None:
    """Return how many tokens fit behind the prompt, according to an engine's error message."""
    context, prompt = CONTEXT.search(error), PROMPT.search(error)
    return int(context[1]) - int(prompt[1]) if context and prompt else None


def fit_to_error(passage: Passage, error: str) -> Passage | None:
    """Clamp `passage` to the tokens that the engine's `error` says are left; None if that would change nothing."""
    left = tokens_left(error)
    limits = {name: value for name in FIELDS if isinstance(value := passage.body.get(name), int)}
    if left is None or left < 1 or not limits or max(limits.values()) <= left:
        return None
    body: dict[str, JsonValue] = {**passage.body, **{name: min(value, left) for name, value in limits.items()}}
    return replace(passage, body=body)
