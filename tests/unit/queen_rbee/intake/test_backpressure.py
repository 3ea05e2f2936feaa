"""Refusals of a full queue give consistent retry times, and reserve places for clients that retry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from llama_orch.contracts.errors import ApiError
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.queen_core import QueenCore, build_queen
from tests.unit.queen_rbee.scripted_engine import scripted_engine

CAPACITY = 16


@asynccontextmanager
async def full_queue(**options) -> AsyncIterator[tuple[QueenCore, list[Task]]]:
    """A queen with a full queue whose dispatcher does not run, and the waiting tasks."""
    async with scripted_engine() as engine:
        queen = build_queen(engine, capacity=CAPACITY, **options)
        queen.pool(slots=2)
        yield queen, [queen.submit(f"number {number}") for number in range(CAPACITY)]


def refusal_of(queen: QueenCore, prompt: str, **request) -> ApiError:
    with pytest.raises(ApiError) as caught:
        queen.submit(prompt, **request)
    return caught.value


def retry_s(refusal: ApiError) -> float:
    return (refusal.body.retry_after_ms or 0) / 1000


async def test_headers_and_body_give_the_same_retry_time(autojump_clock):
    async with full_queue() as (queen, _waiting):
        for number in range(5):
            refusal = refusal_of(queen, f"newcomer {number}")
            headers, wait_ms = dict(refusal.headers), refusal.body.retry_after_ms or 0
            assert headers["x-backoff-ms"] == str(wait_ms)
            assert 0 <= 1000 * int(headers["retry-after"]) - wait_ms < 1000
            assert (refusal.status, refusal.body.retriable) == (429, True)


async def test_each_refusal_gives_a_later_retry_time(autojump_clock):
    async with full_queue() as (queen, _waiting):
        times = [retry_s(refusal_of(queen, f"newcomer {number}")) for number in range(5)]
        assert times == sorted(set(times))


async def test_free_place_is_kept_for_the_next_reservation(autojump_clock):
    async with full_queue() as (queen, waiting):
        wait_s = retry_s(refusal_of(queen, "obedient"))
        queen.dispatcher.cancel(waiting[0])
        refusal = refusal_of(queen, "a newcomer")
        assert "15 of 16 tasks wait" in refusal.body.message
        assert "places reserved for clients that retry: 1" in refusal.body.message
        await trio.sleep(wait_s)
        assert queen.submit("obedient")


async def test_few_places_are_kept_for_upcoming_reservations(autojump_clock):
    async with full_queue() as (queen, waiting):
        for number in range(CAPACITY):
            refusal_of(queen, f"patient {number}")
        for task in waiting[:3]:
            queen.dispatcher.cancel(task)
        assert queen.submit("a newcomer")
        assert refusal_of(queen, "another").status == 429


async def test_slots_do_not_idle_for_reservations(autojump_clock):
    async with full_queue() as (queen, waiting):
        refusal_of(queen, "obedient")
        for task in waiting:
            queen.dispatcher.cancel(task)
        assert queen.submit("a newcomer")


async def test_drop_lru_keeps_no_places(autojump_clock):
    async with full_queue(policy="drop-lru") as (queen, _waiting):
        for number in range(CAPACITY):
            queen.submit(f"interactive {number}", priority="interactive")
        message = refusal_of(queen, "a batch task", priority="batch").body.message
        assert "16 of 16 tasks wait" in message
        assert "reserved" not in message
