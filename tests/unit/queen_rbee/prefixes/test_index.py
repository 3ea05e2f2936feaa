"""The index knows which replicas computed a prompt's beginning lately, and never more than its limits."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.prefixes.blocks import Prompt
from queen_rbee.prefixes.index import MEMORY_S, REPLICAS_PER_BLOCK, PrefixIndex

A, B = ("pool", "a"), ("pool", "b")


def prompt(*blocks: int, hint: int | None = None) -> Prompt:
    """A prompt whose blocks have 10 characters each."""
    return Prompt(blocks, tuple(10 * number for number in range(1, len(blocks) + 1)), hint)


def test_longest_common_beginning_counts():
    index = PrefixIndex()
    index.record(prompt(1, 2, 3), A, 0)
    index.record(prompt(1, 7), B, 0)
    assert index.matches(prompt(1, 2, 3, 4), 1).lengths == {A: 30, B: 10}
    assert index.matches(prompt(9), 1).lengths == {}


def test_replica_of_last_turn_is_the_home():
    index = PrefixIndex()
    index.record(prompt(1, 2), A, 0)
    assert index.matches(prompt(1, 2, 3), 1).home == A
    assert index.matches(prompt(1, 8), 1).home is None
    index.record(prompt(1, 2, 3), B, 1)
    assert index.matches(prompt(1, 2, 3, 4), 2).home == B
    assert index.conversations == {B: 1}


def test_same_hint_counts_as_one_character():
    index = PrefixIndex()
    index.record(prompt(1, hint=50), A, 0)
    index.record(prompt(1), B, 0)
    assert index.matches(prompt(3, hint=50), 1).lengths == {A: 1}
    assert index.matches(prompt(1, hint=50), 1).lengths == {A: 10, B: 10}


def test_old_prompts_are_not_matched():
    index = PrefixIndex()
    index.record(prompt(1), A, 0)
    assert index.matches(prompt(1), MEMORY_S - 1).lengths == {A: 10}
    assert index.matches(prompt(1), MEMORY_S).lengths == {}
    index.record(prompt(2), B, MEMORY_S)
    assert index.conversations == {B: 1}


def test_restarted_replica_has_an_empty_cache():
    index = PrefixIndex()
    index.record(prompt(1), A, 0)
    index.record(prompt(1, 9), B, 0)
    index.forget(A)
    assert index.matches(prompt(1), 2).lengths == {B: 10}
    assert index.conversations == {B: 1}
    index.record(prompt(1, 2), A, 3)
    assert index.matches(prompt(1, 2), 4).lengths == {A: 20, B: 10}


PROMPTS = st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True)


@given(st.lists(st.tuples(PROMPTS, st.integers(0, 20))))
def test_index_is_bounded_and_keeps_the_last_prompt(prompts):
    index = PrefixIndex(blocks_known=10, conversations_known=5)
    for now, (blocks, replica) in enumerate(prompts):
        last, key = prompt(*blocks), ("pool", str(replica))
        index.record(last, key, now)
        assert index.matches(last, now).lengths[key] == 10 * len(blocks)
        assert index.matches(last, now).home == key
        assert len(index._blocks) <= 10
        assert len(index._turns) <= 5
        assert all(len(computed) <= REPLICAS_PER_BLOCK for computed in index._blocks.values())
        assert index.conversations == Counter(replica for replica, _at in index._turns.values())


def test_beginnings_are_kept_longest():
    index = PrefixIndex(blocks_known=3)
    index.record(prompt(1, 2), A, 0)
    index.record(prompt(5, 6), A, 1)
    assert index.matches(prompt(1, 2), 2).lengths == {A: 10}
