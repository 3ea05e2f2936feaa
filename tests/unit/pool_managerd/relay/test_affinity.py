"""Session affinity: the last engine of each session, bounded in time and number."""

from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.relay.affinity import LIFETIME_S, LIMIT, Affinity

POOL = "default"
STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("stuvw"), st.integers(1, 4), st.floats(0, 4)), max_size=40
)


def test_session_expires_after_its_last_use() -> None:
    known = Affinity(lifetime_s=10)
    known.served(POOL, "s", 7, 0)
    assert known.last(POOL, "s", 9) == 7
    known.served(POOL, "s", 7, 9)
    assert known.last(POOL, "s", 18) == 7
    assert known.last(POOL, "s", 19) is None
    assert len(known) == 0


def test_least_recently_used_session_is_dropped() -> None:
    known = Affinity(limit=2)
    for session in ("s", "t", "s", "u"):
        known.served(POOL, session, 1, 0)
    assert [known.last(POOL, session, 0) for session in "stu"] == [1, None, 1]


def test_no_session_is_not_recorded() -> None:
    known = Affinity()
    known.served(POOL, None, 1, 0)
    assert len(known) == 0
    assert known.last(POOL, None, 0) is None


def test_default_memory_is_bounded() -> None:
    known = Affinity()
    for number in range(LIMIT + 10):
        known.served(POOL, f"s{number}", number, 0)
    assert len(known) == LIMIT
    assert known.last(POOL, "s0", LIFETIME_S) is None
    assert len(known) == 0


@given(STEPS)
def test_entry_is_always_the_last_recent_engine(steps: list[tuple[str, str, int, float]]) -> None:
    known, now_s = Affinity(limit=3, lifetime_s=5), 0.0
    served: dict[tuple[str, str], tuple[int, float]] = {}
    for pool_id, session, incarnation, pause_s in steps:
        now_s += pause_s
        known.served(pool_id, session, incarnation, now_s)
        served.pop((pool_id, session), None)
        served[pool_id, session] = incarnation, now_s
        recent = [*served.items()][-3:]
        living = {key: by for key, (by, at_s) in recent if at_s > now_s - 5}
        known_engines = {key: by for key in served if (by := known.last(*key, now_s)) is not None}
        assert known_engines == living
        assert len(known) == len(living)
