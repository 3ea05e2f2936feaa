"""The agent asks the queen before the machine is suspended, and is silent until it is awake again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from llama_orch.contracts.wake import Wake
from pool_managerd.cluster.agent import Agent, NodeIdentity
from pool_managerd.cluster.interfaces import Unwakeable
from pool_managerd.cluster.registration import HeartbeatAccepted, NoAnswer, Registered
from pool_managerd.pools.devices import Gpus
from pool_managerd.pools.node_pools import NodePools
from tests.unit.pool_managerd.fake_queen import FakeQueen

Clock = trio.testing.MockClock
WAKE = Wake(macs=["52:54:00:12:34:56"])
AGREES, REFUSES = HeartbeatAccepted(10_000, may_sleep=True), HeartbeatAccepted(10_000)


async def address() -> str:
    return "http://192.0.2.7:9200"


@dataclass
class Scene:
    """An agent that is registered, and its queen. `wake` is how the machine can be woken at present."""

    queen: FakeQueen = field(default_factory=FakeQueen)
    wake: Wake | Unwakeable = WAKE

    async def how(self) -> Wake | Unwakeable:
        return self.wake

    def __post_init__(self) -> None:
        pools = NodePools()
        pools.set_gpus(Gpus(problem="none"))
        node = NodeIdentity("gpu-1", "0" * 32, "http://queen:8080", 10, 4, 1 << 30, address, self.how)
        self.agent = Agent(node, self.queen, pools)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    play = Scene()
    async with trio.open_nursery() as nursery:
        await nursery.start(play.agent.run)
        await play.queen.until_asked(2)
        await trio.sleep(0.1)
        yield play
        nursery.cancel_scope.cancel()


async def test_registration_says_how_to_wake_the_machine(autojump_clock: Clock) -> None:
    async with scene() as play:
        assert play.queen.registrations[0].wake == WAKE


async def test_queen_is_asked_at_once_and_then_left_alone(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([AGREES])
        asked_at = trio.current_time()
        assert await play.agent.fall_asleep() is None
        assert trio.current_time() - asked_at < 0.1
        assert play.queen.beats[-1].sleeping
        before = len(play.queen.asked)
        await trio.sleep(3600)
        assert len(play.queen.asked) == before


async def test_heartbeat_follows_the_end_of_the_sleep_at_once(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([AGREES])
        await play.agent.fall_asleep()
        await trio.sleep(100)
        play.agent.wake_up()
        before = trio.current_time()
        await play.queen.until_asked(4)
        assert trio.current_time() == before
        assert not play.queen.beats[-1].sleeping
        await trio.sleep(11)
        assert len(play.queen.asked) == 5  # and the usual heartbeats go on


async def test_machine_stays_awake_if_the_queen_needs_it(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([REFUSES])
        assert await play.agent.fall_asleep() == "the queen needs it"
        play.agent.wake_up()
        await trio.sleep(25)
        assert [beat.sleeping for beat in play.queen.beats[1:]] == [True, False, False]


async def test_machine_stays_awake_if_the_queen_is_silent(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([NoAnswer("no")] * 99)
        assert await play.agent.fall_asleep() == "the queen does not answer"


async def test_late_answer_does_not_let_the_machine_sleep(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.mute = True
        assert await play.agent.fall_asleep() == "the queen does not answer"
        play.agent.wake_up()
        play.queen.mute = False
        assert await play.agent.fall_asleep() != "the queen needs it"


async def test_unwakeable_machine_asks_nobody(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.wake = Unwakeable("Wake-on-LAN is not enabled on eth0")
        before = len(play.queen.asked)
        assert await play.agent.fall_asleep() == play.wake
        assert len(play.queen.asked) == before


async def test_changed_mac_is_registered_before_the_sleep(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.wake = Wake(macs=["52:54:00:65:43:21"])
        play.queen.will([Registered(""), AGREES])
        assert await play.agent.fall_asleep() is None
        assert play.queen.registrations[-1].wake == play.wake
        assert play.queen.order[-2:] == ["register", "heartbeat"]


async def test_second_sleep_is_asked_for_anew(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([AGREES, HeartbeatAccepted(10_000), AGREES])
        for _turn in range(2):
            assert await play.agent.fall_asleep() is None
            play.agent.wake_up()
            await trio.sleep(1)
        assert [beat.sleeping for beat in play.queen.beats[1:]] == [True, False, True, False]
