"""max_tokens of /v1 requests is clamped to the context rather than refused."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from queen_rbee.dispatch.max_tokens import available_context, fit_to_context, fit_to_error, tokens_left
from queen_rbee.pools.candidates import Demand, demand_of
from queen_rbee.pools.replica_index import ReplicaIndex
from tests.unit.queen_rbee.imitations.server import listening
from tests.unit.queen_rbee.imitations.vllm import VllmImitation
from tests.unit.queen_rbee.pools.test_placement import candidate
from tests.unit.queen_rbee.v1_client import chat_body, v1_server

ERRORS = {
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


def with_contexts(*sizes: int | None) -> ReplicaIndex:
    """Return replicas with these context sizes."""
    return ReplicaIndex(candidate(pool_id=f"p{place}", ctx_max=size) for place, size in enumerate(sizes))


@pytest.mark.parametrize(
    ("sizes", "requested", "max_tokens", "ctx"),
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
def test_max_tokens_is_clamped_to_the_largest_context(sizes, requested, max_tokens, ctx):
    fitted_request = fit_to_context(TaskRequest(max_tokens=requested), passage(), with_contexts(*sizes))
    assert (fitted_request.max_tokens, fitted_request.ctx) == (max_tokens, ctx)
    assert demand_of(fitted_request, passage()).ctx == ctx


@given(st.integers(1, 50), st.lists(st.one_of(st.none(), st.integers(1, 50)), max_size=4))
def test_available_context_is_that_of_a_suitable_replica(max_tokens, sizes):
    """The context that is required never excludes a replica with room for the answer."""
    index = with_contexts(*sizes)
    large_enough = index.suitable(Demand(endpoint="chat", ctx=max_tokens))
    known = [found.ctx_max for found in large_enough if found.ctx_max]
    largest = max((size for size in sizes if size), default=None)
    expected = max_tokens if known else None if large_enough else largest
    assert available_context(max_tokens, index.contexts(Demand(endpoint="chat"))) == expected


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_tokens_left_are_parsed_from_engine_errors(error):
    assert tokens_left(error) == 1948
    smaller = fit_to_error(passage(max_tokens=4000, max_completion_tokens=10, n=2), error)
    assert smaller is not None
    assert smaller.body == {"messages": [], "max_tokens": 1948, "max_completion_tokens": 10, "n": 2}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"max_tokens": 4000}, "out of memory"),
        ({}, ERRORS["vllm 0.6"]),
        ({"max_tokens": 1948}, ERRORS["vllm 0.6"]),
        ({"max_tokens": 9}, ERRORS["vllm 0.6"].replace("(100 in", "(2048 in")),
    ],
)
def test_error_that_clamping_cannot_fix_is_not_retried(body, error):
    assert fit_to_error(passage(**body), error) is None


@dataclasses.dataclass
class SmallVllm(VllmImitation):
    """A vLLM that refuses more than 1948 tokens after any prompt."""

    async def answer(self, call, mood):
        if (call.asked.body or {}).get("max_tokens", 0) > 1948:
            await call.document(400, self.complaint(ERRORS["vllm 0.11"], "BadRequestError", 400))
        else:
            await super().answer(call, mood)


@pytest.mark.parametrize("stream", [False, True])
async def test_request_is_repeated_with_the_tokens_left(stream):
    async with v1_server() as running, listening(SmallVllm()) as engine:
        running.queen.pool(engine="vllm", url=engine.url, ctx_max=2048, models_available=["org/served"])
        answer = await running.ask(body=chat_body(max_tokens=2000, stream=stream))
        assert answer.status == 200
        assert json.dumps("error") not in answer.body.decode()
        requested = [each.body["max_tokens"] for each in engine.heard if each.path == "/v1/chat/completions"]
        assert requested == [2000, 1948]
