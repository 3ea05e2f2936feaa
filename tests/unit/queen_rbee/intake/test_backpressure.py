"""A refusal says when to come back, the same in every place, and keeps places for those who will."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from llama_orch.contracts.errors import ApiError
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.core import Queen, core
from tests.unit.queen_rbee.scripted_engine import scripted_engine

CAPACITY = 16


@asynccontextmanager
async def full(**options) -> AsyncIterator[tuple[Queen, list[Task]]]:
    """A queen whose dispatcher does not run and who has no place left, and the tasks that wait."""
    async with scripted_engine() as engine:
        queen = core(engine, capacity=CAPACITY, **options)
        queen.pool(slots=2)
        yield queen, [queen.submit(f"number {number}") for number in range(CAPACITY)]


def refused(queen: Queen, prompt: str, **request) -> ApiError:
    with pytest.raises(ApiError) as caught:
        queen.submit(prompt, **request)
    return caught.value


def told_s(refusal: ApiError) -> float:
    return (refusal.body.retry_after_ms or 0) / 1000


async def test_the_headers_and_the_body_tell_the_same_time():
    async with full() as (queen, _waiting):
        for number in range(5):
            refusal = refused(queen, f"newcomer {number}")
            headers, wait_ms = dict(refusal.headers), refusal.body.retry_after_ms or 0
            assert headers["x-backoff-ms"] == str(wait_ms)
            assert 0 <= 1000 * int(headers["retry-after"]) - wait_ms < 1000
            assert (refusal.status, refusal.body.retriable) == (429, True)


async def test_each_is_told_a_later_time_than_the_one_before():
    async with full() as (queen, _waiting):
        told = [told_s(refused(queen, f"newcomer {number}")) for number in range(5)]
        assert told == sorted(set(told))


async def test_a_place_that_comes_free_before_its_time_is_kept_for_the_next_who_was_told_to_come(autojump_clock):
    async with full() as (queen, waiting):
        told = told_s(refused(queen, "obedient"))
        queen.dispatcher.cancel(waiting[0])
        refusal = refused(queen, "a newcomer")
        assert "15 of 16 tasks wait" in refusal.body.message
        assert "places kept for those who were told to come: 1" in refusal.body.message
        await trio.sleep(told)
        assert queen.submit("obedient")


async def test_only_a_few_places_are_kept_for_those_whose_time_is_still_to_come():
    async with full() as (queen, waiting):
        for number in range(CAPACITY):
            refused(queen, f"patient {number}")
        for task in waiting[:3]:
            queen.dispatcher.cancel(task)
        assert queen.submit("a newcomer")
        assert refused(queen, "another").status == 429


async def test_slots_do_not_wait_for_those_who_were_told_to_come():
    async with full() as (queen, waiting):
        refused(queen, "obedient")
        for task in waiting:
            queen.dispatcher.cancel(task)
        assert queen.submit("a newcomer")


async def test_where_newcomers_take_the_place_of_others_none_is_kept():
    async with full(policy="drop-lru") as (queen, _waiting):
        for number in range(CAPACITY):
            queen.submit(f"interactive {number}", priority="interactive")
        message = refused(queen, "a batch task", priority="batch").body.message
        assert "16 of 16 tasks wait" in message
        assert "kept" not in message
