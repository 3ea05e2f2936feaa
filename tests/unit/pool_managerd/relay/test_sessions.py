"""The turns of a session go to one engine of a pool, over real sockets, as long as that is ready and has room."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import trio

from pool_managerd.pools.replica import ProbeResult
from pool_managerd.relay import relay
from pool_managerd.relay.affinity import Affinity
from tests.unit.pool_managerd.odd_engine import OddEngine, odd_engine
from tests.unit.pool_managerd.relay_site import LIMIT_S, RelaySite, relay_site
from tests.unit.pool_managerd.values import LOADING, READY, found

MARK = "0123456789abcdef"
WELL, REFUSING = "old", "hello"
"""Paths at the odd engine: one that is answered with 200, and one that is not."""


@dataclass
class Two:
    """A relay to the engines r0 and r1; all being equal, r0 is asked."""

    site: RelaySite
    engines: dict[str, OddEngine]

    async def turn(self, mark: str | None = MARK, path: str = WELL) -> str:
        """A request of a session, to its end; which engine was asked."""
        before = {name: len(engine.asked) for name, engine in self.engines.items()}
        shown = {} if mark is None else {"x_llama_orch_session": mark}
        async with self.site.ask(path, "POST", "default", b"{}", **shown) as answer:
            await answer.read()
        (asked,) = (name for name, engine in self.engines.items() if len(engine.asked) > before[name])
        return asked

    def busy(self, name: str, requests: int = 1) -> ExitStack:
        """So many other requests pass to an engine until the block is left."""
        stack = ExitStack()
        for _ in range(requests):
            stack.enter_context(self.site.registry.leases.held(("default", name), lambda: None))
        return stack

    async def warm(self, mark: str | None = MARK, path: str = WELL) -> None:
        """A turn of the session at r1, where it would not go by itself."""
        with self.busy("r0"):
            assert await self.turn(mark, path) == "r1"

    def looked(self, name: str, result: ProbeResult) -> None:
        """The engine is seen so."""
        (one,) = (one for one in self.site.registry.replicas if one.key[1] == name)
        self.site.registry.apply_probe(one.incarnation, result)

    def announced(self, name: str) -> None:
        """An engine is announced, anew or for the first time, and ready."""
        self.site.registry.take(found(replica_id=name, port=self.engines[name].port))
        self.looked(name, READY)


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    with trio.fail_after(LIMIT_S):
        async with relay_site() as site, odd_engine() as other:
            running = Two(site, {"r0": site.engine, "r1": other})
            running.announced("r1")
            yield running


async def test_the_turns_of_a_session_go_where_its_last_was(two: Two) -> None:
    await two.warm()
    assert [await two.turn() for _ in range(3)] == ["r1", "r1", "r1"]


async def test_other_sessions_and_requests_without_one_go_where_there_is_most_room(two: Two) -> None:
    await two.warm()
    assert [await two.turn("another"), await two.turn(None)] == ["r0", "r0"]


async def test_a_session_is_not_kept_waiting_for_its_engine_and_goes_on_where_it_went(two: Two) -> None:
    await two.warm()
    with two.busy("r1", requests=3):
        assert await two.turn() == "r1", "one slot is free"
    with two.busy("r1", requests=4):
        assert await two.turn() == "r0"
    with two.busy("r0"):
        assert await two.turn() == "r0"


async def test_an_engine_that_is_not_ready_is_not_waited_for(two: Two) -> None:
    await two.warm()
    two.looked("r1", LOADING)
    assert await two.turn() == "r0"


async def test_an_engine_that_was_announced_anew_has_lost_the_session(two: Two) -> None:
    await two.warm()
    two.announced("r1")
    assert await two.turn() == "r0"


async def test_an_engine_that_has_not_taken_a_turn_is_not_the_sessions(two: Two) -> None:
    await two.warm(path=REFUSING)
    assert await two.turn() == "r0"


async def test_a_session_whose_time_has_passed_is_forgotten(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "Affinity", lambda: Affinity(lifetime_s=0))
    async with relay_site() as site:
        forgetful = Two(site, {"r0": site.engine, "r1": two.engines["r1"]})
        forgetful.announced("r1")
        await forgetful.warm()
        assert await forgetful.turn() == "r0"


async def test_a_turn_that_is_left_in_the_middle_has_filled_the_cache_all_the_same(two: Two) -> None:
    with two.busy("r0"):
        async with two.site.ask("stall", x_llama_orch_session=MARK) as answer:
            assert await anext(answer.chunks())
    assert await two.turn() == "r1"


@pytest.mark.parametrize("mark", ["a b", "x" * 65, "0123456789abcdef,"])
async def test_a_mark_that_is_none_is_passed_over(two: Two, mark: str) -> None:
    await two.warm(mark)
    assert await two.turn(mark) == "r0"


async def test_no_engine_learns_of_sessions(two: Two) -> None:
    await two.warm()
    (asked,) = two.engines["r1"].asked
    assert b"session" not in asked.lower()
    assert MARK.encode() not in asked
