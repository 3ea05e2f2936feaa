"""Each task of a session is a turn: budgets are checked at admission and charged at the end."""

import json
from uuid import UUID, uuid4

import pytest
import trio

from llama_orch.contracts.catalog import NewModel
from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.sessions import SessionChange, SessionView
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.stalls import StallLimits
from queen_rbee.intake.recovery import restore
from queen_rbee.sessions.session import TTL_MS
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import (
    TIMEOUT_S,
    QueenCore,
    build_queen,
    end_events,
    running_queen,
    wait_for_first_token,
)
from tests.unit.queen_rbee.scripted_engine import scripted_engine

USED = 5
"""Tokens of one task: the scripted engine reports 3 for the prompt and 2 for the answer."""


def view_of(queen: QueenCore, session_id: UUID) -> SessionView:
    session = queen.sessions.view(session_id, trio.current_time())
    assert session is not None
    return session


async def limited(queen: QueenCore, **limits) -> UUID:
    session_id = uuid4()
    await queen.sessions.change(session_id, SessionChange(**limits), trio.current_time())
    return session_id


def refusal_of(queen: QueenCore, session_id: UUID, **request) -> ApiError:
    with pytest.raises(ApiError) as caught:
        queen.submit(session_id=session_id, **request)
    return caught.value


async def wait_for_end(task: Task) -> None:
    """Wait until `task` has ended and is accounted for."""
    await end_events(task)
    with trio.fail_after(TIMEOUT_S):
        while task.request.prompt is not None:
            await trio.lowlevel.checkpoint()


async def turn(queen: QueenCore, session_id: UUID, **request) -> Task:
    queen.runs.limits = StallLimits()
    task = queen.submit(session_id=session_id, **request)
    await wait_for_end(task)
    return task


async def test_turn_is_charged_with_the_engines_counts():
    async with running_queen() as queen:
        session_id = await limited(queen, tokens_budget=100, time_budget_ms=60_000)
        await turn(queen, session_id, max_tokens=50)
        session = view_of(queen, session_id)
        assert (session.turns, session.tokens_budget_remaining) == (1, 100 - USED)
        assert session.time_budget_remaining_ms is not None
        assert session.time_budget_remaining_ms < 60_000


async def test_turn_beyond_the_budget_is_refused_at_admission():
    async with running_queen() as queen:
        session_id = await limited(queen, tokens_budget=8)
        await turn(queen, session_id, max_tokens=8)
        refusal = refusal_of(queen, session_id, max_tokens=4)
        assert (refusal.status, refusal.body.code) == (409, ErrorCode.ADMISSION_REJECT)
        assert refusal.body.policy_label == "session-tokens-budget"
        assert ("x-budget-tokens-remaining", "3") in refusal.headers
        assert len(queen.queue) == 0
        assert (view_of(queen, session_id).turns, len(queen.book)) == (1, 1)
        with pytest.raises(ApiError):
            await queen.accept(session_id=session_id, max_tokens=4)
        assert queen.store.tasks == {}


async def test_expected_tokens_count_without_max_tokens():
    async with running_queen() as queen:
        session_id = await limited(queen, tokens_budget=8)
        assert refusal_of(queen, session_id, expected_tokens=9).body.policy_label == "session-tokens-budget"
        await turn(queen, session_id, expected_tokens=8)


@pytest.mark.parametrize("prompt", ["refuse", "break", "hang up", "midway"])
async def test_failed_turn_is_charged_with_its_tokens(prompt: str):
    async with running_queen() as queen:
        session_id = await limited(queen, tokens_budget=100)
        task = await turn(queen, session_id, prompt=prompt, max_tokens=90)
        session = view_of(queen, session_id)
        assert (session.turns, session.tokens_budget_remaining) == (1, 100 - task.measurements.tokens_out)


async def test_cancelled_running_turn_is_charged():
    async with running_queen() as queen:
        session_id = await limited(queen, tokens_budget=100)
        task = queen.submit("stall", session_id=session_id)
        await wait_for_first_token(task)
        queen.dispatcher.cancel(task)
        await wait_for_end(task)
        session = view_of(queen, session_id)
        assert (session.turns, session.tokens_budget_remaining) == (1, 99)


@pytest.mark.parametrize("end", ["cancel", "drop", "deadline"])
async def test_task_that_never_ran_releases_its_turn(end: str):
    async with scripted_engine() as engine:
        queen = build_queen(engine)
        queen.pool()
        session_id = await limited(queen, tokens_budget=10, max_turns=1)
        task = queen.submit(session_id=session_id, max_tokens=10)
        assert refusal_of(queen, session_id, max_tokens=1).body.policy_label == "session-turns"
        if end == "cancel":
            queen.dispatcher.cancel(task)
        else:
            code = ErrorCode.QUEUE_FULL_DROP_LRU if end == "drop" else ErrorCode.DEADLINE_UNMET
            queen.dispatcher.drop(task, code, "x", retriable=True)
        session = view_of(queen, session_id)
        assert (session.turns, session.tokens_budget_remaining) == (0, 10)
        queen.submit(session_id=session_id, max_tokens=10)


async def test_task_that_cannot_be_stored_releases_its_turn():
    async with scripted_engine() as engine:
        queen = build_queen(engine)
        queen.pool()
        session_id = await limited(queen, max_turns=1)
        queen.store.failure = StoreFailure("the disk is full")
        with pytest.raises(ApiError):
            await queen.accept(session_id=session_id)
        queen.store.failure = None
        await queen.accept(session_id=session_id)


async def test_task_refused_by_the_queue_is_not_a_turn():
    async with scripted_engine() as engine:
        queen = build_queen(engine, capacity=1)
        queen.pool()
        queen.submit()
        session_id = await limited(queen, tokens_budget=10)
        assert refusal_of(queen, session_id).status == 429
        assert view_of(queen, session_id).turns == 0


async def test_metrics_event_reports_remaining_budgets():
    async with running_queen() as queen:
        session_id = await limited(queen, tokens_budget=100, cost_budget=2.5)
        await turn(queen, session_id)
        task = await turn(queen, session_id)
        metrics = [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == "metrics"]
        placed = next(frame for frame in metrics if "pool_id" in frame)
        assert (placed["tokens_budget_remaining"], placed["cost_budget_remaining"]) == (100 - USED, 2.5)
        assert "time_budget_remaining_ms" not in placed


@pytest.mark.parametrize("model_ref", ["tiny", "TINY.gguf", "hf:org/repo/tiny.gguf", None])
async def test_turn_costs_the_catalog_price_of_its_model(model_ref: str | None):
    async with running_queen() as queen:
        queen.pool(models_available=["hf:org/repo/tiny.gguf"])
        new = NewModel(id="tiny", model_ref="hf:org/repo/tiny.gguf", cost_per_1k_tokens=20.0)
        await queen.catalog.add(new)
        session_id = await limited(queen, cost_budget=0.2)
        await turn(queen, session_id, model_ref=model_ref, max_tokens=5)
        assert view_of(queen, session_id).cost_budget_remaining == pytest.approx(0.2 - USED * 20 / 1000)
        await turn(queen, session_id, model_ref=model_ref, max_tokens=5)
        refusal = refusal_of(queen, session_id, model_ref=model_ref, max_tokens=5)
        assert refusal.body.policy_label == "session-cost-budget"


async def test_unknown_model_costs_nothing():
    async with running_queen() as queen:
        queen.pool(models_available=["hf:org/repo/tiny.gguf"])
        new = NewModel(id="other", model_ref="hf:org/repo/other.gguf", cost_per_1k_tokens=20.0)
        await queen.catalog.add(new)
        session_id = await limited(queen, cost_budget=0.0)
        await turn(queen, session_id, model_ref="tiny")
        assert view_of(queen, session_id).cost_budget_remaining == 0.0


async def test_restart_reserves_waiting_turns_again():
    async with scripted_engine() as engine:
        queen = build_queen(engine)
        queen.pool()
        session_id = await limited(queen, tokens_budget=10)
        await queen.accept(session_id=session_id, max_tokens=8)
        store = queen.store.after_restart()
        late = trio.current_time() + 2 * TTL_MS / 1000
        after = build_queen(engine, store=store)
        await after.sessions.load(late)
        await restore(store, after.intake, after.book, after.accounting)
        assert after.sessions.budgets(session_id) == {"tokens_budget_remaining": 10}
        with pytest.raises(ApiError) as caught:
            after.intake.admit(TaskRequest(prompt="x", session_id=session_id, max_tokens=4), "c")
        assert caught.value.body.retriable
