"""Sessions enforce limits and expire, and memory and store agree across failures and restarts."""

from functools import partial
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.sessions import SessionChange
from queen_rbee.sessions.session import MAX_TURNS, TTL_MS, Session, SessionTurn
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.store.protocol import Document, StoreFailure
from tests.unit.queen_rbee.memory_store import MemoryStore

NOW = 1_000_000.0
TTL_S = TTL_MS / 1000
OFFSET_S = float(1 << 30)
"""Wall clock minus trio's clock, on which NOW is."""
FULL = StoreFailure("the disk is full")

make_sessions = partial(Sessions, offset_s=lambda: OFFSET_S)


def take_turn(
    sessions: Sessions, session_id: UUID, now: float = NOW, *, tokens: int = 10, ms: float = 5.0, cost: float = 0.0
) -> None:
    """Open and end a turn."""
    turn = sessions.open_turn(session_id, tokens, now)
    sessions.end_turn(turn, tokens_in=0, tokens_out=tokens, engine_ms=ms, cost=cost, now=now)


async def restarted(store: MemoryStore, now: float = NOW, offset_s: float = OFFSET_S) -> Sessions:
    """Return the sessions after a restart, with the wall clock `offset_s` ahead of trio's."""
    sessions = Sessions(store.after_restart(), offset_s=lambda: offset_s)
    await sessions.load(now)
    return sessions


async def survives_restart(sessions: Sessions, store: MemoryStore, session_id: UUID, now: float = NOW) -> bool:
    """Return whether a restart now would leave the session unchanged."""
    return (await restarted(store, now)).view(session_id, now) == sessions.view(session_id, now)


def labels(refused: ApiError | None) -> tuple[int, ErrorCode, str | None] | None:
    return (refused.status, refused.body.code, refused.body.policy_label) if refused else None


async def test_first_turn_creates_session_with_default_limits():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    assert sessions.view(session_id, NOW) is None
    assert sessions.turn_refusal(session_id, 10, NOW) is None
    take_turn(sessions, session_id)
    view = sessions.view(session_id, NOW + 60)
    assert view is not None
    assert (view.ttl_ms_remaining, view.turns, view.turns_remaining) == (TTL_MS - 60_000, 1, MAX_TURNS - 1)
    assert (view.tokens_budget_remaining, view.time_budget_remaining_ms, view.cost_budget_remaining) == (None,) * 3
    assert (view.kv_warmth, view.kv_bytes, view.pool_id) == (False, None, None)


async def test_turn_beyond_max_turns_is_refused():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    for _ in range(MAX_TURNS):
        assert sessions.turn_refusal(session_id, 10, NOW) is None
        take_turn(sessions, session_id)
    refused = sessions.turn_refusal(session_id, 10, NOW)
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
async def test_each_limit_is_enforced(limit: dict[str, float], label: str):
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange.model_validate(limit), NOW)
    for _ in range(2):
        assert sessions.turn_refusal(session_id, 10, NOW, price=10.0) is None
        take_turn(sessions, session_id, ms=5.0, cost=0.1)
    assert labels(sessions.turn_refusal(session_id, 10, NOW, price=10.0)) == (409, ErrorCode.ADMISSION_REJECT, label)


async def test_concurrent_turns_cannot_overdraw_a_budget():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=15), NOW)
    turn = sessions.open_turn(session_id, 10, NOW)
    refused = sessions.turn_refusal(session_id, 10, NOW)
    assert refused is not None
    assert refused.body.retriable
    sessions.end_turn(turn, tokens_in=2, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
    assert sessions.turn_refusal(session_id, 10, NOW) is None
    assert sessions.budget_headers(session_id) == [("x-budget-tokens-remaining", "12")]


async def test_abandoned_turn_releases_its_reservation():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=15, max_turns=1), NOW)
    sessions.abandon_turn(sessions.open_turn(session_id, 10, NOW))
    assert sessions.turn_refusal(session_id, 15, NOW) is None
    view = sessions.view(session_id, NOW)
    assert view is not None
    assert (view.turns, view.tokens_budget_remaining) == (0, 15)


async def test_turn_is_settled_once():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    turn = sessions.open_turn(session_id, 10, NOW)
    for _ in range(2):
        sessions.end_turn(turn, tokens_in=0, tokens_out=7, engine_ms=1.0, cost=0.0, now=NOW)
        sessions.abandon_turn(turn)
    await sessions.change(session_id, SessionChange(tokens_budget=100), NOW)
    view = sessions.view(session_id, NOW)
    assert view is not None
    assert (view.turns, view.tokens_budget_remaining) == (1, 93)


moves = st.lists(st.tuples(st.sampled_from(["begin", "ended", "abandoned", "delete"]), st.integers(0, 9)), max_size=40)


@settings(deadline=None)
@given(moves)
def test_no_order_of_operations_miscounts_turns(moves: list[tuple[str, int]]):
    async def play() -> None:
        sessions, ids = make_sessions(MemoryStore()), [UUID(int=number) for number in range(3)]
        opened_turns: list[SessionTurn] = []
        open_by_session: dict[UUID, list[SessionTurn]] = {}
        done: dict[UUID, int] = {}
        for name, number in moves:
            session_id = ids[number % len(ids)]
            if name == "begin":
                opened_turns.append(sessions.open_turn(session_id, 10, NOW))
                open_by_session.setdefault(session_id, []).append(opened_turns[-1])
            elif name == "delete":
                assert await sessions.delete(session_id, NOW) is (session_id in open_by_session)
                open_by_session.pop(session_id, None)
                done.pop(session_id, None)
            elif opened_turns:
                turn = opened_turns[number % len(opened_turns)]  # may be settled, or of a deleted session
                mine = open_by_session.get(turn.session_id, [])
                if name == "ended":
                    done[turn.session_id] = done.get(turn.session_id, 0) + (turn in mine)
                    sessions.end_turn(turn, tokens_in=0, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
                else:
                    sessions.abandon_turn(turn)
                if turn in mine:
                    mine.remove(turn)
            for known, opened in open_by_session.items():
                view = sessions.view(known, NOW)
                assert view is not None
                assert view.turns == len(opened) + done.get(known, 0)
            assert len(sessions) == len(open_by_session)

    trio.run(play)


async def test_session_expires_after_its_ttl():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    take_turn(sessions, session_id)
    take_turn(sessions, session_id, NOW + 500)
    assert sessions.view(session_id, NOW + 500 + TTL_S - 0.001) is not None
    assert sessions.view(session_id, NOW + 500 + TTL_S) is None
    await sessions.remove_expired(NOW + 500 + TTL_S)
    assert store.documents["session"] == {}


async def test_expired_session_does_not_affect_its_successor():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=5, ttl_ms=1000), NOW)
    assert sessions.turn_refusal(session_id, 10, NOW) is not None
    assert sessions.turn_refusal(session_id, 10, NOW + 1) is None
    take_turn(sessions, session_id, NOW + 1)
    view = sessions.view(session_id, NOW + 1)
    assert view is not None
    assert (view.turns, view.tokens_budget_remaining) == (1, None)


async def test_session_with_open_turn_does_not_expire():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    turn = sessions.open_turn(session_id, 10, NOW)
    later = NOW + 2 * TTL_S
    await sessions.remove_expired(later)
    view = sessions.view(session_id, later)
    assert view is not None
    assert view.ttl_ms_remaining == TTL_MS
    sessions.abandon_turn(turn)
    assert sessions.view(session_id, later) is None


async def test_restart_keeps_sessions_without_open_turns():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    await sessions.change(
        session_id, SessionChange(tokens_budget=100, time_budget_ms=900, cost_budget=2.5, max_turns=3), NOW
    )
    turn, waiting = sessions.open_turn(session_id, 10, NOW), sessions.open_turn(session_id, 50, NOW)
    sessions.place_turn(turn, "p", "r0")
    sessions.end_turn(turn, tokens_in=5, tokens_out=3, engine_ms=1.5, cost=0.5, now=NOW, kv_bytes=77)
    after = await restarted(store)
    sessions.abandon_turn(waiting)
    assert after.view(session_id, NOW) == sessions.view(session_id, NOW)
    assert after.affinity(session_id) == ("p", "r0")
    assert after.turn_refusal(session_id, 92, NOW) is None


async def test_ttl_runs_while_the_daemon_is_stopped():
    store, session_id = MemoryStore(), uuid4()
    take_turn(make_sessions(store), session_id)
    view = (await restarted(store, NOW + 100)).view(session_id, NOW + 100)
    assert view is not None
    assert view.ttl_ms_remaining == TTL_MS - 100_000
    late = await restarted(store, NOW + TTL_S)
    assert late.view(session_id, NOW + TTL_S) is None


@given(st.floats(-1e6, 1e6), st.floats(0, 2 * TTL_S))
def test_restart_keeps_remaining_ttl_whatever_the_clock(begins: float, idle_s: float):
    async def play() -> None:
        store, session_id = MemoryStore(), uuid4()
        take_turn(make_sessions(store), session_id)
        after = await restarted(store, begins, OFFSET_S + NOW + idle_s - begins)
        view = after.view(session_id, begins)
        if view is None:
            assert idle_s >= TTL_S - 0.001
        else:
            assert view.ttl_ms_remaining == pytest.approx(TTL_MS - idle_s * 1000, abs=1)

    trio.run(play)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_setting_the_wall_clock_does_not_affect_ttl(jumps: list[float]):
    async def play() -> None:
        offset_s, store, session_id = OFFSET_S, MemoryStore(), uuid4()
        sessions = Sessions(store, offset_s=lambda: offset_s)
        take_turn(sessions, session_id)
        for jump_s in jumps:
            offset_s += jump_s
            await sessions.remove_expired(NOW + TTL_S - 0.001)
        assert sessions.view(session_id, NOW + TTL_S - 0.001) is not None
        await sessions.remove_expired(NOW + TTL_S)
        assert store.documents["session"] == {}

    trio.run(play)


async def test_restored_task_reopens_its_expired_session():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    await sessions.change(session_id, SessionChange(tokens_budget=15), NOW)
    take_turn(sessions, session_id)
    sessions.open_turn(session_id, 5, NOW)
    later = NOW + 2 * TTL_S
    after = await restarted(store, later)
    after.open_turn(session_id, 5, later)  # as its restored task does
    await after.remove_expired(later)
    assert after.budgets(session_id) == {"tokens_budget_remaining": 5}
    assert labels(after.turn_refusal(session_id, 1, later)) == (
        409,
        ErrorCode.ADMISSION_REJECT,
        "session-tokens-budget",
    )


async def test_session_stored_in_the_future_expires():
    store, session_id = MemoryStore(), uuid4()
    take_turn(make_sessions(store), session_id, NOW + 1_000_000)
    view = (await restarted(store)).view(session_id, NOW)
    assert view is not None
    assert view.ttl_ms_remaining == TTL_MS
    assert (await restarted(store, NOW)).view(session_id, NOW + TTL_S) is None


async def test_invalid_stored_session_is_ignored_with_warning(caplog: pytest.LogCaptureFixture):
    store, session_id = MemoryStore(), uuid4()
    take_turn(make_sessions(store), session_id)
    store.put_later("session", Document("something", '{"turns":"many"}'))
    assert len(await restarted(store)) == 1
    assert "ignoring stored session something" in caplog.text


async def test_change_keeps_other_limits():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=100, max_turns=3), NOW)
    take_turn(sessions, session_id)
    view = await sessions.change(session_id, SessionChange(time_budget_ms=50, ttl_ms=5000), NOW + 1)
    assert (view.tokens_budget_remaining, view.turns_remaining, view.time_budget_remaining_ms) == (90, 2, 45)
    assert view.ttl_ms_remaining == 4000


async def test_raised_budget_admits_the_next_turn():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    await sessions.change(session_id, SessionChange(tokens_budget=10), NOW)
    take_turn(sessions, session_id)
    assert sessions.turn_refusal(session_id, 10, NOW) is not None
    await sessions.change(session_id, SessionChange(tokens_budget=20), NOW)
    assert sessions.turn_refusal(session_id, 10, NOW) is None


async def test_change_is_durable_on_return():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    await sessions.change(session_id, SessionChange(tokens_budget=10), NOW)
    assert await survives_restart(sessions, store, session_id)


async def test_failed_change_leaves_limits_unchanged():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    await sessions.change(session_id, SessionChange(tokens_budget=10), NOW)
    store.failure = FULL
    with pytest.raises(StoreFailure):
        await sessions.change(session_id, SessionChange(tokens_budget=99), NOW)
    assert sessions.budgets(session_id) == {"tokens_budget_remaining": 10}
    store.failure = None
    assert await survives_restart(sessions, store, session_id)


async def test_session_that_cannot_be_stored_is_not_created():
    store, session_id = MemoryStore(failure=FULL), uuid4()
    sessions = make_sessions(store)
    with pytest.raises(StoreFailure):
        await sessions.change(session_id, SessionChange(tokens_budget=99), NOW)
    assert sessions.view(session_id, NOW) is None


class SlowStore(MemoryStore):
    """A store whose operations return when `released` is set; `put` fails then."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.released = trio.Event(), trio.Event()

    async def put(self, kind, document) -> None:
        self.called.set()
        await self.released.wait()
        raise FULL

    async def remove(self, kind, key) -> bool:
        found = await super().remove(kind, key)
        self.called.set()
        await self.released.wait()
        return found


@pytest.mark.parametrize("known", [True, False])
async def test_turn_ended_during_failed_change_is_counted(known: bool):
    store, session_id = SlowStore(), uuid4()
    sessions = make_sessions(store)
    if known:
        take_turn(sessions, session_id)

    async def change() -> None:
        with pytest.raises(StoreFailure):
            await sessions.change(session_id, SessionChange(max_turns=2), NOW)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await store.called.wait()
        take_turn(sessions, session_id)
        store.released.set()
    view = sessions.view(session_id, NOW)
    assert view is not None
    assert (view.turns, view.turns_remaining) == (1 + known, MAX_TURNS - 1 - known)
    assert await survives_restart(sessions, store, session_id)


async def test_delete_removes_session_from_the_store():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    take_turn(sessions, session_id)
    assert await sessions.delete(session_id, NOW)
    assert sessions.view(session_id, NOW) is None
    assert len(await restarted(store)) == 0
    assert not await sessions.delete(session_id, NOW)


async def test_failed_delete_keeps_the_session():
    store, session_id = MemoryStore(), uuid4()
    sessions = make_sessions(store)
    take_turn(sessions, session_id)
    store.failure = FULL
    with pytest.raises(StoreFailure):
        await sessions.delete(session_id, NOW)
    store.failure = None
    assert sessions.view(session_id, NOW) is not None
    assert await survives_restart(sessions, store, session_id)


async def test_turn_ended_during_delete_does_not_restore_session():
    store, session_id = SlowStore(), uuid4()
    sessions = make_sessions(store)
    turn = sessions.open_turn(session_id, 10, NOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.delete, session_id, NOW)
        await store.called.wait()
        sessions.end_turn(turn, tokens_in=0, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
        store.released.set()
    await sessions.remove_expired(NOW)
    assert sessions.view(session_id, NOW) is None
    assert store.documents["session"] == {}


async def test_turn_of_deleted_session_is_not_counted():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    turn = sessions.open_turn(session_id, 10, NOW)
    await sessions.delete(session_id, NOW)
    take_turn(sessions, session_id)
    assert sessions.place_turn(turn, "p", "r0") is None
    sessions.end_turn(turn, tokens_in=0, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
    view = sessions.view(session_id, NOW)
    assert view is not None
    assert (view.turns, view.pool_id) == (1, None)


async def test_failed_removal_from_store_is_repeated(caplog: pytest.LogCaptureFixture):
    store, later = MemoryStore(), NOW + TTL_S
    sessions = make_sessions(store)
    for _ in range(600):
        take_turn(sessions, uuid4())
    store.failure = FULL
    await sessions.remove_expired(later)
    assert len(sessions) == 0
    assert "600 expired sessions cannot be removed from the store yet: the disk is full" in caplog.text
    store.failure = None
    await sessions.remove_expired(later)
    assert store.documents["session"] == {}


async def test_session_recreated_during_removal_stays_stored():
    ids, later = {uuid4() for _ in range(10)}, NOW + TTL_S

    class BusyStore(MemoryStore):
        async def remove(self, kind, key) -> bool:
            if len(sessions) == 0:
                for session_id in ids - {UUID(key)}:
                    take_turn(sessions, session_id, later)
            return await super().remove(kind, key)

    store = BusyStore()
    sessions = make_sessions(store)
    for session_id in ids:
        take_turn(sessions, session_id)
    await sessions.remove_expired(later)
    assert len(sessions) == len(store.documents["session"]) == len(ids) - 1


async def test_expired_session_used_again_stays_stored():
    store, session_id, later = MemoryStore(), uuid4(), NOW + TTL_S
    sessions = make_sessions(store)
    take_turn(sessions, session_id)
    assert sessions.turn_refusal(session_id, 10, later) is None
    take_turn(sessions, session_id, later)
    await sessions.remove_expired(later)
    assert await survives_restart(sessions, store, session_id, later)
    assert sessions.view(session_id, later) is not None


async def test_longest_idle_session_is_removed_beyond_the_limit():
    store = MemoryStore()
    sessions, (first, second, third, fourth) = make_sessions(store, limit=2), [uuid4() for _ in range(4)]
    open_turn = sessions.open_turn(first, 10, NOW)
    take_turn(sessions, second)
    take_turn(sessions, third)
    assert [sessions.view(each, NOW) is not None for each in (first, second, third)] == [True, False, True]
    sessions.open_turn(third, 10, NOW)
    refused = sessions.turn_refusal(fourth, 10, NOW)
    assert labels(refused) == (503, ErrorCode.ADMISSION_REJECT, "sessions-full")
    with pytest.raises(ApiError):
        await sessions.change(fourth, SessionChange(max_turns=1), NOW)
    sessions.abandon_turn(open_turn)
    assert sessions.turn_refusal(fourth, 10, NOW) is None
    assert sessions.view(first, NOW) is not None, "a session was removed before the new one was created"
    await sessions.change(fourth, SessionChange(max_turns=1), NOW)
    assert sessions.view(first, NOW) is None
    await sessions.remove_expired(NOW)
    assert set(store.documents["session"]) == {str(third), str(fourth)}


async def test_load_keeps_at_most_the_limit():
    store, ids = MemoryStore(), [uuid4() for _ in range(5)]
    for number, session_id in enumerate(ids):
        take_turn(make_sessions(store), session_id, NOW + number)
    after = make_sessions(store, limit=2)
    await after.load(NOW + 5)
    assert [view.session_id for view in after.views(NOW + 5, 10)] == [ids[4], ids[3]]
    await after.remove_expired(NOW + 5)
    assert set(store.documents["session"]) == {str(ids[4]), str(ids[3])}


async def test_kv_cache_is_warm_only_on_the_last_replica():
    sessions, session_id = make_sessions(MemoryStore()), uuid4()
    assert sessions.affinity(session_id) is None
    warmth = []
    for replica in ("r0", "r0", "r1", "r1"):
        turn = sessions.open_turn(session_id, 10, NOW)
        warmth.append(sessions.place_turn(turn, "p", replica))
        sessions.end_turn(turn, tokens_in=1, tokens_out=1, engine_ms=1.0, cost=0.0, now=NOW)
    assert warmth == [None, True, False, True]
    assert sessions.affinity(session_id) == ("p", "r1")
    view = sessions.view(session_id, NOW)
    assert view is not None
    assert (view.kv_warmth, view.pool_id, view.replica_id) == (True, "p", "r1")


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 5))
def test_pages_list_each_session_once_newest_first(count: int, size: int):
    sessions, ids = make_sessions(MemoryStore()), [UUID(int=number) for number in range(count)]
    for number, session_id in enumerate(ids):
        take_turn(sessions, session_id, NOW + number)
    found: list[UUID] = []
    while page := sessions.views(NOW + count, size, found[-1] if found else None):
        assert len(page) <= size
        found += [view.session_id for view in page]
    assert found == ids[::-1]


async def test_page_after_unknown_session_raises_key_error():
    with pytest.raises(KeyError):
        make_sessions(MemoryStore()).views(NOW, 10, uuid4())


def test_session_holds_no_content():
    text = {name for name, kind in Session.__annotations__.items() if "str" in str(kind)}
    assert text == {"place"}
