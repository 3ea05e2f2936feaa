"""Prompts that begin alike have chains that begin alike, and turns end with blocks."""

from itertools import pairwise, takewhile

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from queen_rbee.prefixes.blocks import BLOCKS_LIMIT, BLOCKS_PER_SIZE, FIRST_BLOCK, UNKNOWN, blocks_of, prompt_of

RUNS = st.tuples(st.sampled_from("ab"), st.integers(0, 2 * FIRST_BLOCK))
TEXTS = st.lists(RUNS, max_size=3).map(lambda runs: "".join(letter * length for letter, length in runs))
MESSAGES = st.lists(TEXTS, max_size=5)
REQUEST = TaskRequest(prompt="unused")


def chat(*messages: tuple[str, str], **fields) -> Passage:
    listed: list[JsonValue] = [{"role": role, "content": content} for role, content in messages]
    return Passage("chat", {"model": "tiny", "messages": listed, **fields}, 0)


def common(one, other) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


@given(MESSAGES, MESSAGES)
def test_longer_conversation_continues_the_chain(said, more):
    before, after = blocks_of(said), blocks_of([*said, *more])
    assert after.chain[: len(before.chain)] == before.chain
    assert before.length == sum(map(len, said))


@given(MESSAGES, MESSAGES)
def test_common_blocks_have_the_same_text(one, other):
    first, second = blocks_of(one), blocks_of(other)
    blocks = common(first.chain, second.chain)
    assert first.ends[:blocks] == second.ends[:blocks]
    length = first.ends[blocks - 1] if blocks else 0
    assert "".join(one)[:length] == "".join(other)[:length]


@given(MESSAGES)
def test_no_block_exceeds_the_first_limit(texts):
    assert all(0 < stop - start <= FIRST_BLOCK for start, stop in pairwise((0, *blocks_of(texts).ends)))


def test_later_blocks_are_larger_and_bounded():
    first = FIRST_BLOCK * BLOCKS_PER_SIZE
    assert len(blocks_of(["x" * first]).chain) == BLOCKS_PER_SIZE
    assert len(blocks_of(["x" * (first + 4 * FIRST_BLOCK)]).chain) == BLOCKS_PER_SIZE + 1
    assert len(blocks_of(["x" * 10_000_000]).chain) == BLOCKS_LIMIT
    assert len(blocks_of(["hi"] * 10_000).chain) < BLOCKS_LIMIT


def test_continued_text_continues_the_chain():
    before, after = (prompt_of(TaskRequest(prompt="p" * length), None) for length in (1300, 1900))
    assert after.chain[: len(before.chain)] == before.chain
    assert (before.length, after.length) == (2 * FIRST_BLOCK, 3 * FIRST_BLOCK)


def test_role_and_tools_belong_to_the_prompt():
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"n": 1}}}]
    chains = [
        prompt_of(REQUEST, passage).chain
        for passage in (chat(("user", "hi")), chat(("system", "hi")), chat(("user", "hi"), tools=tools))
    ]
    assert len({chain[0] for chain in chains}) == 3


def test_only_prompts_with_kv_cache_have_a_chain():
    assert prompt_of(TaskRequest(prompt="p" * 600), None).chain
    assert prompt_of(REQUEST, Passage("completions", {"prompt": "p" * 600}, 0)).chain
    assert prompt_of(REQUEST, Passage("embeddings", {"input": "p"}, 0)) == UNKNOWN


def test_cache_key_of_client_is_a_hint():
    one, same, other = (prompt_of(REQUEST, chat(("user", "hi"), prompt_cache_key=key)) for key in ("k", "k", "l"))
    assert one == same
    assert one.hint != other.hint
    assert one.chain == other.chain
    assert prompt_of(REQUEST, chat(("user", "hi"), prompt_cache_key=["k"])).hint is None


def test_deeply_nested_content_ends():
    content: list[JsonValue] = ["x" * 600]
    for _level in range(1000):
        content = [content]
    assert prompt_of(REQUEST, Passage("chat", {"messages": content}, 0)).chain == ()
