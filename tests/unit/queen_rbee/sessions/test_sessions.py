"""Sessions: their limits bind, their time runs out, and memory and store agree, whatever fails and whoever restarts."""

from functools import partial
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.sessions import SessionChange
from queen_rbee.sessions.session import MAX_TURNS, TTL_MS, Session, Turn
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.store.protocol import Document, StoreFailure
from tests.unit.queen_rbee.memory_store import MemoryStore

NOW = 1_000_000.0
TTL_S = TTL_MS / 1000
AHEAD_S = float(1 << 30)
"""How far the wall's clock is ahead of trio's, on which NOW is."""
FULL = StoreFailure("the disk is full")

made = partial(Sessions, ahead=lambda: AHEAD_S)


def take_turn(
    sessions: Sessions, session_id: UUID, now: float = NOW, *, tokens: int = 10, ms: float = 5.0, cost: float = 0.0
) -> None:
    """A turn from its beginning to its end."""
    turn = sessions.begin(session_id, tokens, now)
    sessions.ended(turn, tokens_in=0, tokens_out=tokens, engine_ms=ms, cost=cost, now=now)


async def restarted(store: MemoryStore, now: float = NOW, ahead_s: float = AHEAD_S) -> Sessions:
    """What the next queen knows; the wall's clock is then so far ahead of hers."""
    sessions = Sessions(store.after_restart(), ahead=lambda: ahead_s)
    await sessions.load(now)
    return sessions


async def agree(sessions: Sessions, store: MemoryStore, session_id: UUID, now: float = NOW) -> bool:
    """Whether a queen that starts now would see the session as this one does."""
    return (await restarted(store, now)).view(session_id, now) == sessions.view(session_id, now)


def labels(refused: ApiError | None) -> tuple[int, ErrorCode, str | None] | None:
    return (refused.status, refused.body.code, refused.body.policy_label) if refused else None


async def test_a_session_begins_with_its_first_turn_and_has_the_limits_that_all_have():
    sessions, session_id = made(MemoryStore()), uuid4()
    assert sessions.view(session_id, NOW) is None
    assert sessions.check(session_id, 10, NOW) is None
    take_turn(sessions, session_id)
    seen = sessions.view(session_id, NOW + 60)
    assert seen is not None
    assert (seen.ttl_ms_remaining, seen.turns, seen.turns_remaining) == (TTL_MS - 60_000, 1, MAX_TURNS - 1)
    assert (seen.tokens_budget_remaining, seen.time_budget_remaining_ms, seen.cost_budget_remaining) == (None,) * 3
    assert (seen.kv_warmth, seen.kv_bytes, seen.pool_id) == (False, None, None)


async def test_after_its_last_turn_a_session_takes_no_more():
    sessions, session_id = made(MemoryStore()), uuid4()
    for _ in range(MAX_TURNS):
        assert sessions.check(session_id, 10, NOW) is None
        take_turn(sessions, session_id)
    refused = sessions.check(session_id, 10, NOW)
    assert labels(refused) == (409, ErrorCode.ADMISSION_REJECT, "session-turns")


@pytest.mark.parametrize(
    ("limit", "label"),
    [
        ({"tokens_budget": 25}, "session-tokens-budget"),
        ({"time_budget_ms": 10}, "session-time-budget"),
        ({"cost_budget": 0.25}, "session-cost-budget"),
        ({"max_turns": 2}, "session-turns"),
    ],
)
async def test_each_limit_that_is_set_binds(limit: dict[str, float], label: str):
    sessions, session_id = made(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange.model_validate(limit), NOW)
    for _ in range(2):
        assert sessions.check(session_id, 10, NOW, price=10.0) is None
        take_turn(sessions, session_id, ms=5.0, cost=0.1)
    assert labels(sessions.check(session_id, 10, NOW, price=10.0)) == (409, ErrorCode.ADMISSION_REJECT, label)


async def test_two_turns_at_once_cannot_overdraw_a_budget_together():
    sessions, session_id = made(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=15), NOW)
    turn = sessions.begin(session_id, 10, NOW)
    refused = sessions.check(session_id, 10, NOW)
    assert refused is not None
    assert refused.body.retriable
    sessions.ended(turn, tokens_in=2, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
    assert sessions.check(session_id, 10, NOW) is None
    assert sessions.budget_headers(session_id) == [("x-budget-tokens-remaining", "12")]


async def test_a_turn_that_never_ran_gives_everything_back():
    sessions, session_id = made(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=15, max_turns=1), NOW)
    sessions.abandoned(sessions.begin(session_id, 10, NOW))
    assert sessions.check(session_id, 15, NOW) is None
    seen = sessions.view(session_id, NOW)
    assert seen is not None
    assert (seen.turns, seen.tokens_budget_remaining) == (0, 15)


async def test_a_turn_is_settled_once():
    sessions, session_id = made(MemoryStore()), uuid4()
    turn = sessions.begin(session_id, 10, NOW)
    for _ in range(2):
        sessions.ended(turn, tokens_in=0, tokens_out=7, engine_ms=1.0, cost=0.0, now=NOW)
        sessions.abandoned(turn)
    await sessions.change(session_id, SessionChange(tokens_budget=100), NOW)
    seen = sessions.view(session_id, NOW)
    assert seen is not None
    assert (seen.turns, seen.tokens_budget_remaining) == (1, 93)


moves = st.lists(st.tuples(st.sampled_from(["begin", "ended", "abandoned", "delete"]), st.integers(0, 9)), max_size=40)


@settings(deadline=None)
@given(moves)
def test_no_order_of_begin_end_and_delete_loses_a_turn_or_counts_one_twice(moves: list[tuple[str, int]]):
    async def play() -> None:
        sessions, ids = made(MemoryStore()), [UUID(int=number) for number in range(3)]
        begun: list[Turn] = []
        living: dict[UUID, list[Turn]] = {}
        done: dict[UUID, int] = {}
        for name, number in moves:
            session_id = ids[number % len(ids)]
            if name == "begin":
                begun.append(sessions.begin(session_id, 10, NOW))
                living.setdefault(session_id, []).append(begun[-1])
            elif name == "delete":
                assert await sessions.delete(session_id, NOW) is (session_id in living)
                living.pop(session_id, None)
                done.pop(session_id, None)
            elif begun:
                turn = begun[number % len(begun)]  # settled ones and those of deleted sessions among them
                mine = living.get(turn.session_id, [])
                if name == "ended":
                    done[turn.session_id] = done.get(turn.session_id, 0) + (turn in mine)
                    sessions.ended(turn, tokens_in=0, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
                else:
                    sessions.abandoned(turn)
                if turn in mine:
                    mine.remove(turn)
            for known, opened in living.items():
                seen = sessions.view(known, NOW)
                assert seen is not None
                assert seen.turns == len(opened) + done.get(known, 0)
            assert len(sessions) == len(living)

    trio.run(play)


async def test_a_session_ends_when_its_time_has_run_out_since_the_last_turn():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    take_turn(sessions, session_id)
    take_turn(sessions, session_id, NOW + 500)
    assert sessions.view(session_id, NOW + 500 + TTL_S - 0.001) is not None
    assert sessions.view(session_id, NOW + 500 + TTL_S) is None
    await sessions.tidy(NOW + 500 + TTL_S)
    assert store.documents["session"] == {}


async def test_an_ended_session_has_no_more_say_in_a_new_one_of_its_id():
    sessions, session_id = made(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=5, ttl_ms=1000), NOW)
    assert sessions.check(session_id, 10, NOW) is not None
    assert sessions.check(session_id, 10, NOW + 1) is None
    take_turn(sessions, session_id, NOW + 1)
    seen = sessions.view(session_id, NOW + 1)
    assert seen is not None
    assert (seen.turns, seen.tokens_budget_remaining) == (1, None)


async def test_a_session_with_an_open_turn_does_not_end():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    turn = sessions.begin(session_id, 10, NOW)
    later = NOW + 2 * TTL_S
    await sessions.tidy(later)
    seen = sessions.view(session_id, later)
    assert seen is not None
    assert seen.ttl_ms_remaining == TTL_MS
    sessions.abandoned(turn)
    assert sessions.view(session_id, later) is None


async def test_sessions_survive_a_restart_but_for_their_open_turns():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    await sessions.change(
        session_id, SessionChange(tokens_budget=100, time_budget_ms=900, cost_budget=2.5, max_turns=3), NOW
    )
    turn, waiting = sessions.begin(session_id, 10, NOW), sessions.begin(session_id, 50, NOW)
    sessions.placed(turn, "p", "r0")
    sessions.ended(turn, tokens_in=5, tokens_out=3, engine_ms=1.5, cost=0.5, now=NOW, kv_bytes=77)
    after = await restarted(store)
    sessions.abandoned(waiting)
    assert after.view(session_id, NOW) == sessions.view(session_id, NOW)
    assert after.affinity(session_id) == ("p", "r0")
    assert after.check(session_id, 92, NOW) is None


async def test_time_runs_on_while_no_queen_does():
    store, session_id = MemoryStore(), uuid4()
    take_turn(made(store), session_id)
    seen = (await restarted(store, NOW + 100)).view(session_id, NOW + 100)
    assert seen is not None
    assert seen.ttl_ms_remaining == TTL_MS - 100_000
    late = await restarted(store, NOW + TTL_S)
    assert late.view(session_id, NOW + TTL_S) is None


@given(st.floats(-1e6, 1e6), st.floats(0, 2 * TTL_S))
def test_a_session_has_the_same_time_left_after_a_restart_wherever_the_next_queens_clock_begins(
    begins: float, idle_s: float
):
    async def play() -> None:
        store, session_id = MemoryStore(), uuid4()
        take_turn(made(store), session_id)
        after = await restarted(store, begins, AHEAD_S + NOW + idle_s - begins)
        seen = after.view(session_id, begins)
        if seen is None:
            assert idle_s >= TTL_S - 0.001
        else:
            assert seen.ttl_ms_remaining == pytest.approx(TTL_MS - idle_s * 1000, abs=1)

    trio.run(play)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_a_clock_that_is_set_while_the_queen_runs_neither_ends_a_session_nor_keeps_it(jumps: list[float]):
    async def play() -> None:
        ahead_s, store, session_id = AHEAD_S, MemoryStore(), uuid4()
        sessions = Sessions(store, ahead=lambda: ahead_s)
        take_turn(sessions, session_id)
        for jump_s in jumps:
            ahead_s += jump_s
            await sessions.tidy(NOW + TTL_S - 0.001)
        assert sessions.view(session_id, NOW + TTL_S - 0.001) is not None
        await sessions.tidy(NOW + TTL_S)
        assert store.documents["session"] == {}

    trio.run(play)


async def test_an_open_task_goes_on_with_its_session_however_long_no_queen_ran():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    await sessions.change(session_id, SessionChange(tokens_budget=15), NOW)
    take_turn(sessions, session_id)
    sessions.begin(session_id, 5, NOW)
    later = NOW + 2 * TTL_S
    after = await restarted(store, later)
    after.begin(session_id, 5, later)  # as its task does when it is restored
    await after.tidy(later)
    assert after.budgets(session_id) == {"tokens_budget_remaining": 5}
    assert labels(after.check(session_id, 1, later)) == (409, ErrorCode.ADMISSION_REJECT, "session-tokens-budget")


async def test_a_clock_that_was_ahead_does_not_make_a_session_live_for_ever():
    store, session_id = MemoryStore(), uuid4()
    take_turn(made(store), session_id, NOW + 1_000_000)
    seen = (await restarted(store)).view(session_id, NOW)
    assert seen is not None
    assert seen.ttl_ms_remaining == TTL_MS
    assert (await restarted(store, NOW)).view(session_id, NOW + TTL_S) is None


async def test_a_session_in_the_store_that_is_not_understood_is_left_out_and_named(caplog: pytest.LogCaptureFixture):
    store, session_id = MemoryStore(), uuid4()
    take_turn(made(store), session_id)
    store.put_later("session", Document("something", '{"turns":"many"}'))
    assert len(await restarted(store)) == 1
    assert "session something in the store is not understood" in caplog.text


async def test_a_change_names_only_what_it_changes():
    sessions, session_id = made(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=100, max_turns=3), NOW)
    take_turn(sessions, session_id)
    seen = await sessions.change(session_id, SessionChange(time_budget_ms=50, ttl_ms=5000), NOW + 1)
    assert (seen.tokens_budget_remaining, seen.turns_remaining, seen.time_budget_remaining_ms) == (90, 2, 45)
    assert seen.ttl_ms_remaining == 4000


async def test_a_raised_budget_lets_the_next_turn_in():
    sessions, session_id = made(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=10), NOW)
    take_turn(sessions, session_id)
    assert sessions.check(session_id, 10, NOW) is not None
    await sessions.change(session_id, SessionChange(tokens_budget=20), NOW)
    assert sessions.check(session_id, 10, NOW) is None


async def test_a_change_is_durable_when_it_is_answered():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    await sessions.change(session_id, SessionChange(tokens_budget=10), NOW)
    assert await agree(sessions, store, session_id)


async def test_a_change_that_cannot_be_stored_leaves_the_limits_as_they_were():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    await sessions.change(session_id, SessionChange(tokens_budget=10), NOW)
    store.failure = FULL
    with pytest.raises(StoreFailure):
        await sessions.change(session_id, SessionChange(tokens_budget=99), NOW)
    assert sessions.budgets(session_id) == {"tokens_budget_remaining": 10}
    store.failure = None
    assert await agree(sessions, store, session_id)


async def test_a_session_that_cannot_be_stored_is_not_made():
    store, session_id = MemoryStore(failure=FULL), uuid4()
    sessions = made(store)
    with pytest.raises(StoreFailure):
        await sessions.change(session_id, SessionChange(tokens_budget=99), NOW)
    assert sessions.view(session_id, NOW) is None


class SlowStore(MemoryStore):
    """A store whose disk answers when it is told to, and then with a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = trio.Event(), trio.Event()

    async def put(self, kind, document) -> None:
        self.asked.set()
        await self.answers.wait()
        raise FULL

    async def remove(self, kind, key) -> bool:
        found = await super().remove(kind, key)
        self.asked.set()
        await self.answers.wait()
        return found


@pytest.mark.parametrize("known", [True, False])
async def test_a_turn_that_ends_while_a_change_fails_is_counted_under_the_old_limits(known: bool):
    store, session_id = SlowStore(), uuid4()
    sessions = made(store)
    if known:
        take_turn(sessions, session_id)

    async def change() -> None:
        with pytest.raises(StoreFailure):
            await sessions.change(session_id, SessionChange(max_turns=2), NOW)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await store.asked.wait()
        take_turn(sessions, session_id)
        store.answers.set()
    seen = sessions.view(session_id, NOW)
    assert seen is not None
    assert (seen.turns, seen.turns_remaining) == (1 + known, MAX_TURNS - 1 - known)
    assert await agree(sessions, store, session_id)


async def test_a_deleted_session_is_forgotten_also_by_the_store():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    take_turn(sessions, session_id)
    assert await sessions.delete(session_id, NOW)
    assert sessions.view(session_id, NOW) is None
    assert len(await restarted(store)) == 0
    assert not await sessions.delete(session_id, NOW)


async def test_a_session_that_cannot_be_deleted_is_still_there():
    store, session_id = MemoryStore(), uuid4()
    sessions = made(store)
    take_turn(sessions, session_id)
    store.failure = FULL
    with pytest.raises(StoreFailure):
        await sessions.delete(session_id, NOW)
    store.failure = None
    assert sessions.view(session_id, NOW) is not None
    assert await agree(sessions, store, session_id)


async def test_a_turn_that_ends_while_its_session_is_deleted_does_not_bring_it_back():
    store, session_id = SlowStore(), uuid4()
    sessions = made(store)
    turn = sessions.begin(session_id, 10, NOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.delete, session_id, NOW)
        await store.asked.wait()
        sessions.ended(turn, tokens_in=0, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
        store.answers.set()
    await sessions.tidy(NOW)
    assert sessions.view(session_id, NOW) is None
    assert store.documents["session"] == {}


async def test_a_turn_of_a_deleted_session_runs_on_and_counts_no_more():
    sessions, session_id = made(MemoryStore()), uuid4()
    turn = sessions.begin(session_id, 10, NOW)
    await sessions.delete(session_id, NOW)
    take_turn(sessions, session_id)
    assert sessions.placed(turn, "p", "r0") is None
    sessions.ended(turn, tokens_in=0, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
    seen = sessions.view(session_id, NOW)
    assert seen is not None
    assert (seen.turns, seen.pool_id) == (1, None)


async def test_what_cannot_be_taken_out_of_the_store_is_tried_again(caplog: pytest.LogCaptureFixture):
    store, later = MemoryStore(), NOW + TTL_S
    sessions = made(store)
    for _ in range(600):
        take_turn(sessions, uuid4())
    store.failure = FULL
    await sessions.tidy(later)
    assert len(sessions) == 0
    assert "600 ended sessions stay in the store for now: the disk is full" in caplog.text
    store.failure = None
    await sessions.tidy(later)
    assert store.documents["session"] == {}


async def test_sessions_that_are_made_anew_while_others_are_taken_out_of_the_store_stay_in_it():
    ids, later = {uuid4() for _ in range(10)}, NOW + TTL_S

    class BusyStore(MemoryStore):
        async def remove(self, kind, key) -> bool:
            if len(sessions) == 0:
                for session_id in ids - {UUID(key)}:
                    take_turn(sessions, session_id, later)
            return await super().remove(kind, key)

    store = BusyStore()
    sessions = made(store)
    for session_id in ids:
        take_turn(sessions, session_id)
    await sessions.tidy(later)
    assert len(sessions) == len(store.documents["session"]) == len(ids) - 1


async def test_a_session_that_is_used_again_is_not_taken_out_of_the_store():
    store, session_id, later = MemoryStore(), uuid4(), NOW + TTL_S
    sessions = made(store)
    take_turn(sessions, session_id)
    assert sessions.check(session_id, 10, later) is None
    take_turn(sessions, session_id, later)
    await sessions.tidy(later)
    assert await agree(sessions, store, session_id, later)
    assert sessions.view(session_id, later) is not None


async def test_beyond_the_limit_the_session_goes_that_idles_longest_and_never_one_with_an_open_turn():
    store = MemoryStore()
    sessions, (first, second, third, fourth) = made(store, limit=2), [uuid4() for _ in range(4)]
    open_turn = sessions.begin(first, 10, NOW)
    take_turn(sessions, second)
    take_turn(sessions, third)
    assert [sessions.view(each, NOW) is not None for each in (first, second, third)] == [True, False, True]
    sessions.begin(third, 10, NOW)
    refused = sessions.check(fourth, 10, NOW)
    assert labels(refused) == (503, ErrorCode.ADMISSION_REJECT, "sessions-full")
    with pytest.raises(ApiError):
        await sessions.change(fourth, SessionChange(max_turns=1), NOW)
    sessions.abandoned(open_turn)
    assert sessions.check(fourth, 10, NOW) is None
    assert sessions.view(first, NOW) is not None, "nobody goes before the newcomer is in"
    await sessions.change(fourth, SessionChange(max_turns=1), NOW)
    assert sessions.view(first, NOW) is None
    await sessions.tidy(NOW)
    assert set(store.documents["session"]) == {str(third), str(fourth)}


async def test_a_queen_takes_over_no_more_sessions_than_it_keeps():
    store, ids = MemoryStore(), [uuid4() for _ in range(5)]
    for number, session_id in enumerate(ids):
        take_turn(made(store), session_id, NOW + number)
    after = made(store, limit=2)
    await after.load(NOW + 5)
    assert [seen.session_id for seen in after.views(NOW + 5, 10)] == [ids[4], ids[3]]
    await after.tidy(NOW + 5)
    assert set(store.documents["session"]) == {str(ids[4]), str(ids[3])}


async def test_the_cache_is_warm_where_the_last_turn_was_and_only_there():
    sessions, session_id = made(MemoryStore()), uuid4()
    assert sessions.affinity(session_id) is None
    told = []
    for replica in ("r0", "r0", "r1", "r1"):
        turn = sessions.begin(session_id, 10, NOW)
        told.append(sessions.placed(turn, "p", replica))
        sessions.ended(turn, tokens_in=1, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
    assert told == [None, True, False, True]
    assert sessions.affinity(session_id) == ("p", "r1")
    seen = sessions.view(session_id, NOW)
    assert seen is not None
    assert (seen.kv_warmth, seen.pool_id, seen.replica_id) == (True, "p", "r1")


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 5))
def test_pages_show_each_session_once_the_most_recently_used_first(count: int, size: int):
    sessions, ids = made(MemoryStore()), [UUID(int=number) for number in range(count)]
    for number, session_id in enumerate(ids):
        take_turn(sessions, session_id, NOW + number)
    found: list[UUID] = []
    while page := sessions.views(NOW + count, size, found[-1] if found else None):
        assert len(page) <= size
        found += [seen.session_id for seen in page]
    assert found == ids[::-1]


async def test_a_page_begins_behind_a_session_that_is_there():
    with pytest.raises(KeyError):
        made(MemoryStore()).views(NOW, 10, uuid4())


def test_a_session_holds_no_content():
    text = {name for name, kind in Session.__annotations__.items() if "str" in str(kind)}
    assert text == {"place"}
