"""max_tokens of /v1 clients beyond what a context has room for: clamped, as servers of OpenAI's API do. Pure.

Coding tools ask for thousands of tokens whatever the model. llama-server ends such an answer where its context ends.
vLLM, SGLang and TGI refuse it and tell the size of the prompt, so they are asked again for what there is room for.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from queen_rbee.pools.candidates import Candidate, demand_of
from queen_rbee.pools.replica_index import ReplicaIndex

LIMITS = ("max_tokens", "max_completion_tokens")
CONTEXT = re.compile(r"(?:maximum context length (?:is|of)|`max_new_tokens` must be <=) (\d{1,9})\b")
PROMPT = re.compile(
    r"\b(\d{1,9}) (?:input tokens|`inputs` tokens|in (?:the|your) (?:messages|prompt)|tokens from the input)"
)
"""How vLLM, SGLang, TGI and OpenAI tell the context and the prompt's part of a request that does not fit."""


def fitted(request: TaskRequest, passage: Passage, replicas: ReplicaIndex) -> TaskRequest:
    """`request` with a max_tokens that the largest context of those that could serve it has, and a demand for that
    context. As long as no context is known, `request` as it is."""
    wanted = request.max_tokens
    if wanted is None or request.ctx is not None:
        return request
    demand = demand_of(request, passage)
    enough = replicas.suitable(replace(demand, ctx=wanted))
    room = wanted if any(found.ctx_max for found in enough) else largest(() if enough else replicas.suitable(demand))
    return request if room is None else request.model_copy(update={"max_tokens": min(wanted, room), "ctx": room})


def largest(candidates: Sequence[Candidate]) -> int | None:
    """The largest context that one of them has, in tokens a slot."""
    return max((found.ctx_max for found in candidates if found.ctx_max), default=None)


def room_left(complaint: str) -> int | None:
    """The tokens that an engine has room for behind a prompt, by what it says of a request that asks for too many."""
    context, prompt = CONTEXT.search(complaint), PROMPT.search(complaint)
    return int(context[1]) - int(prompt[1]) if context and prompt else None


def clamped(passage: Passage, complaint: str) -> Passage | None:
    """`passage` with no more tokens than `complaint` says there is room for; None where that would change nothing."""
    room = room_left(complaint)
    limits = {name: value for name in LIMITS if isinstance(value := passage.body.get(name), int)}
    if room is None or room < 1 or not limits or max(limits.values()) <= room:
        return None
    body: dict[str, JsonValue] = {**passage.body, **{name: min(value, room) for name, value in limits.items()}}
    return replace(passage, body=body)
