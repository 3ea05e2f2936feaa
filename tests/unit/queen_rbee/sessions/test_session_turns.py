"""Each task of a session is a turn of it: budgets are looked at before it waits and charged when it has ended."""

import json
from uuid import UUID, uuid4

import pytest
import trio

from llama_orch.contracts.catalog import NewModel
from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.sessions import SessionChange, SessionView
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.silence import Limits
from queen_rbee.intake.restoring import restore
from queen_rbee.sessions.session import TTL_MS
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import SOON_S, Queen, core, ended, first_token, running
from tests.unit.queen_rbee.scripted_engine import scripted_engine

USED = 5
"""Tokens of one task: the scripted engine counts three of the prompt and two of the answer."""


def seen(queen: Queen, session_id: UUID) -> SessionView:
    found = queen.sessions.view(session_id, trio.current_time())
    assert found is not None
    return found


async def limited(queen: Queen, **limits) -> UUID:
    session_id = uuid4()
    await queen.sessions.change(session_id, SessionChange(**limits), trio.current_time())
    return session_id


def refused(queen: Queen, session_id: UUID, **request) -> ApiError:
    with pytest.raises(ApiError) as caught:
        queen.submit(session_id=session_id, **request)
    return caught.value


async def closed(task: Task) -> None:
    """Return when `task` has ended and is accounted for."""
    await ended(task)
    with trio.fail_after(SOON_S):
        while task.request.prompt is not None:
            await trio.lowlevel.checkpoint()


async def turn(queen: Queen, session_id: UUID, **request) -> Task:
    queen.dispatcher.runs.limits = Limits()
    task = queen.submit(session_id=session_id, **request)
    await closed(task)
    return task


async def test_a_turn_is_charged_with_what_the_engine_counted():
    async with running() as queen:
        session_id = await limited(queen, tokens_budget=100, time_budget_ms=60_000)
        await turn(queen, session_id, max_tokens=50)
        found = seen(queen, session_id)
        assert (found.turns, found.tokens_budget_remaining) == (1, 100 - USED)
        assert found.time_budget_remaining_ms is not None
        assert found.time_budget_remaining_ms < 60_000


async def test_a_turn_beyond_the_budget_is_refused_before_it_waits_and_leaves_nothing_behind():
    async with running() as queen:
        session_id = await limited(queen, tokens_budget=8)
        await turn(queen, session_id, max_tokens=8)
        refusal = refused(queen, session_id, max_tokens=4)
        assert (refusal.status, refusal.body.code) == (409, ErrorCode.ADMISSION_REJECT)
        assert refusal.body.policy_label == "session-tokens-budget"
        assert ("x-budget-tokens-remaining", "3") in refusal.headers
        assert len(queen.dispatcher.queue) == 0
        assert (seen(queen, session_id).turns, len(queen.dispatcher.book)) == (1, 1)
        with pytest.raises(ApiError):
            await queen.accept(session_id=session_id, max_tokens=4)
        assert queen.store.tasks == {}


async def test_what_a_task_is_expected_to_use_counts_where_it_has_no_limit():
    async with running() as queen:
        session_id = await limited(queen, tokens_budget=8)
        assert refused(queen, session_id, expected_tokens=9).body.policy_label == "session-tokens-budget"
        await turn(queen, session_id, expected_tokens=8)


@pytest.mark.parametrize("prompt", ["refuse", "break", "hang up", "midway"])
async def test_a_task_that_fails_is_a_turn_and_charged_with_what_had_come(prompt: str):
    async with running() as queen:
        session_id = await limited(queen, tokens_budget=100)
        task = await turn(queen, session_id, prompt=prompt, max_tokens=90)
        found = seen(queen, session_id)
        assert (found.turns, found.tokens_budget_remaining) == (1, 100 - task.tokens_out)


async def test_a_task_that_is_cancelled_while_it_runs_is_charged_with_what_had_come():
    async with running() as queen:
        session_id = await limited(queen, tokens_budget=100)
        task = queen.submit("stall", session_id=session_id)
        await first_token(task)
        queen.dispatcher.cancel(task)
        await closed(task)
        found = seen(queen, session_id)
        assert (found.turns, found.tokens_budget_remaining) == (1, 99)


@pytest.mark.parametrize("end", ["cancel", "drop", "deadline"])
async def test_a_task_that_never_ran_gives_its_turn_back(end: str):
    async with scripted_engine() as engine:
        queen = core(engine)
        queen.pool()
        session_id = await limited(queen, tokens_budget=10, max_turns=1)
        task = queen.submit(session_id=session_id, max_tokens=10)
        assert refused(queen, session_id, max_tokens=1).body.policy_label == "session-turns"
        if end == "cancel":
            queen.dispatcher.cancel(task)
        else:
            code = ErrorCode.QUEUE_FULL_DROP_LRU if end == "drop" else ErrorCode.DEADLINE_UNMET
            queen.dispatcher.drop(task, code, "x", retriable=True)
        found = seen(queen, session_id)
        assert (found.turns, found.tokens_budget_remaining) == (0, 10)
        queen.submit(session_id=session_id, max_tokens=10)


async def test_a_task_that_cannot_be_stored_gives_its_turn_back():
    async with scripted_engine() as engine:
        queen = core(engine)
        queen.pool()
        session_id = await limited(queen, max_turns=1)
        queen.store.failure = StoreFailure("the disk is full")
        with pytest.raises(ApiError):
            await queen.accept(session_id=session_id)
        queen.store.failure = None
        await queen.accept(session_id=session_id)


async def test_a_task_that_the_queue_refuses_is_no_turn():
    async with scripted_engine() as engine:
        queen = core(engine, capacity=1)
        queen.pool()
        queen.submit()
        session_id = await limited(queen, tokens_budget=10)
        assert refused(queen, session_id).status == 429
        assert seen(queen, session_id).turns == 0


async def test_readers_are_told_what_was_left_when_the_task_was_placed():
    async with running() as queen:
        session_id = await limited(queen, tokens_budget=100, cost_budget=2.5)
        await turn(queen, session_id)
        task = await turn(queen, session_id)
        told = [json.loads(frame.payload) for frame in task.log.frames(0) if frame.event == "metrics"]
        placed = next(frame for frame in told if "pool_id" in frame)
        assert (placed["tokens_budget_remaining"], placed["cost_budget_remaining"]) == (100 - USED, 2.5)
        assert "time_budget_remaining_ms" not in placed


@pytest.mark.parametrize("model_ref", ["tiny", "TINY.gguf", "hf:org/repo/tiny.gguf", None])
async def test_a_turn_costs_what_the_catalog_says_of_the_model_that_ran_whatever_it_was_called(model_ref: str | None):
    async with running() as queen:
        queen.pool(models_available=["hf:org/repo/tiny.gguf"])
        new = NewModel(id="tiny", model_ref="hf:org/repo/tiny.gguf", cost_per_1k_tokens=20.0)
        await queen.dispatcher.accounting.catalog.add(new)
        session_id = await limited(queen, cost_budget=0.2)
        await turn(queen, session_id, model_ref=model_ref, max_tokens=5)
        assert seen(queen, session_id).cost_budget_remaining == pytest.approx(0.2 - USED * 20 / 1000)
        await turn(queen, session_id, model_ref=model_ref, max_tokens=5)
        refusal = refused(queen, session_id, model_ref=model_ref, max_tokens=5)
        assert refusal.body.policy_label == "session-cost-budget"


async def test_a_model_that_the_catalog_does_not_know_costs_nothing():
    async with running() as queen:
        queen.pool(models_available=["hf:org/repo/tiny.gguf"])
        new = NewModel(id="other", model_ref="hf:org/repo/other.gguf", cost_per_1k_tokens=20.0)
        await queen.dispatcher.accounting.catalog.add(new)
        session_id = await limited(queen, cost_budget=0.0)
        await turn(queen, session_id, model_ref="tiny")
        assert seen(queen, session_id).cost_budget_remaining == 0.0


async def test_a_waiting_turn_is_reserved_again_by_the_next_queen_however_late_it_comes():
    async with scripted_engine() as engine:
        queen = core(engine)
        queen.pool()
        session_id = await limited(queen, tokens_budget=10)
        await queen.accept(session_id=session_id, max_tokens=8)
        store = queen.store.after_restart()
        late = trio.current_time() + 2 * TTL_MS / 1000
        after = core(engine, store=store)
        await after.sessions.load(late)
        await restore(store, after.intake, after.dispatcher.accounting)
        assert after.sessions.budgets(session_id) == {"tokens_budget_remaining": 10}
        with pytest.raises(ApiError) as caught:
            after.intake.admit(TaskRequest(prompt="x", session_id=session_id, max_tokens=4), "c")
        assert caught.value.body.retriable
