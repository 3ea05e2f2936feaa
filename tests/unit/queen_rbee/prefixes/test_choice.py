"""The replica that saves most of a prompt is chosen, unless it is much busier or more crowded than others."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.pools.placement import FILTER_LIMIT
from queen_rbee.prefixes.choice import best_match
from queen_rbee.prefixes.index import Matches
from tests.unit.queen_rbee.pools.test_placement import candidate

LENGTH = 100


def fleet(*leased: int):
    return [candidate(replica_id=f"r{n}", leased=busy, slots_total=4) for n, busy in enumerate(leased)]


def key(number: int) -> tuple[str, str]:
    return "alpha", f"r{number}"


def best(candidates, lengths, home=None, conversations=None):
    return best_match(candidates, Matches(lengths, home), LENGTH, conversations or {})


def test_longest_match_is_chosen():
    assert best(fleet(0, 0, 0), {key(0): 30, key(2): 90}) == key(2)


def test_among_equal_matches_the_least_busy_is_chosen():
    assert best(fleet(1, 0, 1), {key(0): 90, key(1): 90, key(2): 90}) == key(1)


def test_whole_match_is_left_when_half_busier():
    assert best(fleet(1, 0), {key(0): LENGTH}) == key(0)
    assert best(fleet(2, 0), {key(0): LENGTH}) is None


def test_short_match_is_left_when_slightly_busier():
    assert best(fleet(0, 0), {key(0): 10}) == key(0)
    assert best(fleet(1, 0), {key(0): 10}) is None


def test_equally_busy_replicas_keep_their_matches():
    assert best(fleet(3, 3), {key(0): 10}) == key(0)


def test_new_conversations_with_one_system_prompt_spread():
    conversations = dict.fromkeys(map(key, range(3)), 0)
    for _conversation in range(12):
        chosen = best(fleet(0, 0, 0), {each: 80 for each, held in conversations.items() if held}, None, conversations)
        conversations[chosen or min(conversations, key=lambda each: conversations[each])] += 1
    assert max(conversations.values()) - min(conversations.values()) <= 1


def test_conversation_stays_on_its_crowded_replica():
    lengths, crowded = {key(0): 90, key(1): 50}, {key(0): 9, key(1): 1}
    assert best(fleet(0, 0), lengths, key(0), crowded) == key(0)
    assert best(fleet(0, 0), lengths, None, crowded) == key(1)


def test_match_in_large_fleet_is_found():
    large = [candidate(replica_id=f"r{n:03}", leased=n % 2) for n in range(2 * FILTER_LIMIT)]
    assert best(large, {("alpha", "r101"): 40, ("alpha", "gone"): 90}) == ("alpha", "r101")


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=5),
    st.dictionaries(st.integers(0, 6).map(key), st.integers(1, LENGTH)),
    st.dictionaries(st.integers(0, 6).map(key), st.integers(0, 9)),
)
def test_chosen_replica_is_open_and_has_a_match(replicas, lengths, conversations):
    candidates = [
        candidate(replica_id=f"r{n}", leased=leased, slots_total=4, ready=ready)
        for n, (leased, ready) in enumerate(replicas)
    ]
    chosen = best(candidates, lengths, None, conversations)
    if chosen is not None:
        assert chosen in lengths
        assert next(c for c in candidates if c.key == chosen).open
