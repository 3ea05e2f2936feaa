"""A /v1 client gets as many tokens as there is room for, never a refusal for its max_tokens alone."""

import dataclasses
import json

import pytest

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from queen_rbee.dispatch.rooms import clamped, fitted, room_left
from queen_rbee.pools.candidates import demand_of
from queen_rbee.pools.replica_index import ReplicaIndex
from tests.unit.queen_rbee.imitations.server import listening
from tests.unit.queen_rbee.imitations.vllm import VllmImitation
from tests.unit.queen_rbee.line import said, site
from tests.unit.queen_rbee.pools.test_placement import candidate

COMPLAINTS = {
    "vllm 0.6": "This model's maximum context length is 2048 tokens. However, you requested 4100 tokens (100 in the "
    "messages, 4000 in the completion). Please reduce the length of the messages or completion.",
    "vllm 0.11": "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is "
    "2048 tokens and your request has 100 input tokens (4000 > 2048 - 100).",
    "sglang": "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total "
    "of 4100 tokens: 100 tokens from the input messages and 4000 tokens for the completion.",
    "tgi": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 100 `inputs` tokens and "
    "4000 `max_new_tokens`",
    "openai": "This model's maximum context length is 2048 tokens, however you requested 4100 tokens (100 in your "
    "prompt; 4000 for the completion).",
}


def passage(**body) -> Passage:
    return Passage("chat", {"messages": [], **body}, 10)


def sized(*sizes: int | None) -> ReplicaIndex:
    """Replicas with contexts of these sizes."""
    return ReplicaIndex(candidate(pool_id=f"p{place}", ctx_max=size) for place, size in enumerate(sizes))


@pytest.mark.parametrize(
    ("sizes", "wanted", "max_tokens", "ctx"),
    [
        ((1024,), 8192, 1024, 1024),
        ((1024, 4096), 8192, 4096, 4096),
        ((1024, 16_384), 8192, 8192, 8192),
        ((1024,), 100, 100, 100),
        ((None,), 8192, 8192, None),
        ((), 8192, 8192, None),
        ((1024,), None, None, None),
    ],
)
def test_max_tokens_is_clamped_to_the_largest_context(sizes, wanted, max_tokens, ctx):
    found = fitted(TaskRequest(max_tokens=wanted), passage(), sized(*sizes))
    assert (found.max_tokens, found.ctx) == (max_tokens, ctx)
    assert demand_of(found, passage()).ctx == ctx


@pytest.mark.parametrize("complaint", COMPLAINTS.values(), ids=COMPLAINTS)
def test_an_engine_that_refuses_tells_the_room_that_is_left(complaint):
    assert room_left(complaint) == 1948
    smaller = clamped(passage(max_tokens=4000, max_completion_tokens=10, n=2), complaint)
    assert smaller is not None
    assert smaller.body == {"messages": [], "max_tokens": 1948, "max_completion_tokens": 10, "n": 2}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"max_tokens": 4000}, "out of memory"),
        ({}, COMPLAINTS["vllm 0.6"]),
        ({"max_tokens": 1948}, COMPLAINTS["vllm 0.6"]),
        ({"max_tokens": 9}, COMPLAINTS["vllm 0.6"].replace("(100 in", "(2048 in")),
    ],
)
def test_what_clamping_cannot_mend_is_not_asked_again(body, complaint):
    assert clamped(passage(**body), complaint) is None


@dataclasses.dataclass
class Narrow(VllmImitation):
    """A vLLM that refuses more than 1948 tokens behind any prompt."""

    async def answer(self, call, mood):
        if (call.asked.body or {}).get("max_tokens", 0) > 1948:
            await call.document(400, self.complaint(COMPLAINTS["vllm 0.11"], "BadRequestError", 400))
        else:
            await super().answer(call, mood)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_vllm_that_has_less_room_is_asked_for_that(stream):
    async with site() as running, listening(Narrow()) as engine:
        running.queen.pool(engine="vllm", url=engine.url, ctx_max=2048, models_available=["org/served"])
        answer = await running.ask(body=said(max_tokens=2000, stream=stream))
        assert answer.status == 200
        assert json.dumps("error") not in answer.body.decode()
        asked = [each.body["max_tokens"] for each in engine.heard if each.path == "/v1/chat/completions"]
        assert asked == [2000, 1948]
