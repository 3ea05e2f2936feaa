"""Session affinity over real sockets: turns go to one engine while it is ready and has a free slot."""

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
"""Paths at the fake engine: one answers 200, the other does not."""


@dataclass
class Two:
    """A relay to the engines r0 and r1; r0 wins ties."""

    site: RelaySite
    engines: dict[str, OddEngine]

    async def turn(self, mark: str | None = MARK, path: str = WELL) -> str:
        """Make a request of a session; return the engine that got it."""
        before = {name: len(engine.asked) for name, engine in self.engines.items()}
        shown = {} if mark is None else {"x_llama_orch_session": mark}
        async with self.site.ask(path, "POST", "default", b"{}", **shown) as answer:
            await answer.read()
        (asked,) = (name for name, engine in self.engines.items() if len(engine.asked) > before[name])
        return asked

    def busy(self, name: str, requests: int = 1) -> ExitStack:
        """Hold leases on an engine until the block is left."""
        stack = ExitStack()
        for _ in range(requests):
            stack.enter_context(self.site.registry.leases.held(("default", name), lambda: None))
        return stack

    async def warm(self, mark: str | None = MARK, path: str = WELL) -> None:
        """Run a turn of the session on r1."""
        with self.busy("r0"):
            assert await self.turn(mark, path) == "r1"

    def looked(self, name: str, result: ProbeResult) -> None:
        """Apply a probe result."""
        (one,) = (one for one in self.site.registry.replicas if one.key[1] == name)
        self.site.registry.apply_probe(one.incarnation, result)

    def announced(self, name: str) -> None:
        """Announce an engine and make it ready."""
        self.site.registry.take(found(replica_id=name, port=self.engines[name].port))
        self.looked(name, READY)


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    with trio.fail_after(LIMIT_S):
        async with relay_site() as site, odd_engine() as other:
            running = Two(site, {"r0": site.engine, "r1": other})
            running.announced("r1")
            yield running


async def test_turns_of_a_session_go_to_one_engine(two: Two) -> None:
    await two.warm()
    assert [await two.turn() for _ in range(3)] == ["r1", "r1", "r1"]


async def test_other_requests_go_to_the_least_busy_engine(two: Two) -> None:
    await two.warm()
    assert [await two.turn("another"), await two.turn(None)] == ["r0", "r0"]


async def test_session_moves_if_its_engine_is_full(two: Two) -> None:
    await two.warm()
    with two.busy("r1", requests=3):
        assert await two.turn() == "r1", "one slot is free"
    with two.busy("r1", requests=4):
        assert await two.turn() == "r0"
    with two.busy("r0"):
        assert await two.turn() == "r0"


async def test_session_moves_if_its_engine_is_unready(two: Two) -> None:
    await two.warm()
    two.looked("r1", LOADING)
    assert await two.turn() == "r0"


async def test_reannounced_engine_loses_the_session(two: Two) -> None:
    await two.warm()
    two.announced("r1")
    assert await two.turn() == "r0"


async def test_failed_turn_does_not_bind_the_session(two: Two) -> None:
    await two.warm(path=REFUSING)
    assert await two.turn() == "r0"


async def test_expired_session_is_forgotten(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "Affinity", lambda: Affinity(lifetime_s=0))
    async with relay_site() as site:
        forgetful = Two(site, {"r0": site.engine, "r1": two.engines["r1"]})
        forgetful.announced("r1")
        await forgetful.warm()
        assert await forgetful.turn() == "r0"


async def test_aborted_turn_binds_the_session(two: Two) -> None:
    with two.busy("r0"):
        async with two.site.ask("stall", x_llama_orch_session=MARK) as answer:
            assert await anext(answer.chunks())
    assert await two.turn() == "r1"


@pytest.mark.parametrize("mark", ["a b", "x" * 65, "0123456789abcdef,"])
async def test_malformed_mark_is_ignored(two: Two, mark: str) -> None:
    await two.warm(mark)
    assert await two.turn(mark) == "r0"


async def test_session_mark_is_not_sent_to_engines(two: Two) -> None:
    await two.warm()
    (asked,) = two.engines["r1"].asked
    assert b"session" not in asked.lower()
    assert MARK.encode() not in asked
