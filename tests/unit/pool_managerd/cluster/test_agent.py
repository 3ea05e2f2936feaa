"""The agent against a scripted queen: registration, heartbeats, backoff, early heartbeats, deregistration."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from llama_orch import VERSION
from llama_orch.contracts.pools import PoolState
from llama_orch.engines.kind import Slots
from pool_managerd.cluster.addressing import AddressUnknown
from pool_managerd.cluster.agent import LEAVE_S, Agent, NodeIdentity
from pool_managerd.cluster.registration import HeartbeatAccepted, NoAnswer, NodeUnknown, Outcome, Registered, Rejected
from pool_managerd.pools.devices import Gpus
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import HealthAnswer, ProbeResult
from tests.unit.pool_managerd.fake_queen import FakeQueen
from tests.unit.pool_managerd.values import GONE, LOADING, READY, TWO_GPUS, found, gpu

Clock = trio.testing.MockClock
NO_GPU = Gpus(problem="none")


@dataclass
class Scene:
    """A running agent, its queen and its pools."""

    agent: Agent
    queen: FakeQueen
    registry: NodePools

    def engine(self, result: ProbeResult = READY) -> None:
        self.registry.apply_probe(self.registry.replicas[0].incarnation, result)


async def address() -> str:
    return "http://192.0.2.7:9200"


@asynccontextmanager
async def scene(
    queen: FakeQueen | None = None, gpus: Gpus | None = NO_GPU, address: Callable[[], Awaitable[str]] = address
) -> AsyncIterator[Scene]:
    queen, registry = queen or FakeQueen(), NodePools()
    if gpus:
        registry.set_gpus(gpus)
    registry.take(found())
    node = NodeIdentity(
        "gpu-1", "0" * 32, "http://queen:8080", 10, cpu_cores=4, ram_total_bytes=1 << 30, address=address
    )
    agent = Agent(node, queen, registry)
    async with trio.open_nursery() as nursery:
        await nursery.start(agent.run)
        yield Scene(agent, queen, registry)
        nursery.cancel_scope.cancel()


async def test_first_heartbeat_follows_registration_immediately(
    autojump_clock: Clock,
) -> None:
    async with scene(gpus=TWO_GPUS) as play:
        await play.queen.until_asked(2)
    assert play.queen.order == ["register", "heartbeat"]
    assert play.queen.times[0] == play.queen.times[1]
    (registration,), (beat,) = play.queen.registrations, play.queen.beats
    assert (registration.node_id, registration.address, registration.pools) == ("gpu-1", await address(), ["default"])
    assert [device.device_id for device in registration.capabilities.gpus] == [0, 1]
    assert (registration.heartbeat_interval_ms, registration.capabilities.cpu_cores) == (10_000, 4)
    assert [(pool.pool_id, pool.node_id, pool.state) for pool in beat.pools] == [
        ("default", "gpu-1", PoolState.STARTING)
    ]
    assert beat.machine_id == registration.machine_id


async def test_heartbeat_interval_follows_the_queen_within_bounds(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([Registered(""), HeartbeatAccepted(700), HeartbeatAccepted(1), HeartbeatAccepted(3_600_000)])
        await play.queen.until_asked(5)
    waits = [after - before for before, after in zip(play.queen.times, play.queen.times[1:], strict=False)]
    assert waits == pytest.approx([0, 0.7, 0.1, 3600])


async def test_ready_pool_is_reported_within_50_ms(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.queen.until_asked(2)
        await trio.sleep(3)
        changed_s = trio.current_time()
        play.engine()
        await play.queen.until_asked(3)
        assert trio.current_time() - changed_s <= 0.05
        assert play.queen.beats[-1].pools[0].ready


async def test_free_slots_and_memory_wait_for_the_next_heartbeat(autojump_clock: Clock) -> None:
    async with scene(gpus=TWO_GPUS) as play:
        play.engine()
        await play.queen.until_asked(2)
        await trio.sleep(1)
        before = len(play.queen.asked)
        play.engine(ProbeResult(HealthAnswer.READY, slots=Slots(4, 0)))
        play.registry.set_gpus(Gpus((gpu(0, free=1), gpu(1, free=2))))
        await trio.sleep(5)
        assert len(play.queen.asked) == before


async def test_flapping_pool_causes_at_most_4_early_heartbeats(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.queen.until_asked(2)
        for _turn in range(50):
            await trio.sleep(0.02)
            play.engine(GONE)
            await trio.sleep(0.02)
            play.engine()
        await trio.sleep(0.5)
        early = play.queen.times[2:]
        for start in early:
            assert len([at for at in early if start <= at < start + 1.0 - 1e-6]) <= 4
        assert len(early) >= 8  # and each second has some
        assert play.queen.beats[-1].pools[0].ready


async def test_change_during_a_heartbeat_is_sent_after_it(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.queen.until_asked(2)
        play.engine()  # before the agent has seen the answer
        await play.queen.until_asked(3)
        assert play.queen.times[2] - play.queen.times[1] <= 0.05


async def test_restarted_queen_gets_a_registration_immediately(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([Registered(""), HeartbeatAccepted(1000), NodeUnknown()])
        await play.queen.until_asked(5)
    assert play.queen.order == ["register", "heartbeat", "heartbeat", "register", "heartbeat"]
    assert play.queen.times[2:] == pytest.approx([play.queen.times[2]] * 3)


async def test_queen_that_forgets_registrations_is_not_flooded(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([outcome for _turn in range(200) for outcome in (Registered(""), NodeUnknown())])
        await trio.sleep(30)
        assert len(play.queen.asked) < 40


async def test_silent_queen_is_retried_forever_with_backoff(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([NoAnswer("refused")] * 1000)
        await trio.sleep(600)
        waits = [after - before for before, after in zip(play.queen.times, play.queen.times[1:], strict=False)]
        assert waits[0] <= 0.25
        assert max(waits) <= 10
        assert min(waits[-5:]) >= 5
        play.queen.answers.clear()
        await play.queen.until_asked(len(play.queen.asked) + 2)
        assert play.queen.order[-2:] == ["register", "heartbeat"]


async def test_node_view_reports_the_registration(autojump_clock: Clock) -> None:
    token = Rejected("it answers 401: the token is not the one this daemon has")
    async with scene() as play:
        play.queen.will([token, Registered(""), HeartbeatAccepted(1000), *[NoAnswer("timeout")] * 20])
        seen = []
        for count in (1, 3, 4):
            await play.queen.until_asked(count)
            await trio.testing.wait_all_tasks_blocked()
            seen.append((play.agent.view.registered, play.agent.view.problem))
        shown = play.agent.view
    assert seen == [(False, token.reason), (True, None), (True, "timeout")]
    assert (shown.profile, shown.node_id, shown.machine_id) == ("cloud", "gpu-1", "0" * 32)
    assert (shown.queen_url, shown.version) == ("http://queen:8080", VERSION)


async def test_after_an_outage_a_heartbeat_is_tried_first(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([Registered(""), HeartbeatAccepted(1000), NoAnswer("timeout"), HeartbeatAccepted(1000)])
        await play.queen.until_asked(4)
    assert play.queen.order == ["register", "heartbeat", "heartbeat", "heartbeat"]


async def test_rejection_is_logged_once_per_cause(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with scene() as play:
        token = Rejected("it answers 401: the token is wrong (this node's token is token_fp6=abcdef)")
        play.queen.will([token] * 5 + [Rejected("node id gpu-1 is that of another machine")] * 5)
        await play.queen.until_asked(12)
    refusals = [text for text in caplog.messages if "refused" in text]
    assert refusals == [
        "registration of node gpu-1 refused by http://queen:8080: it answers 401: the token is wrong "
        "(this node's token is token_fp6=abcdef)",
        "registration of node gpu-1 refused by http://queen:8080: node id gpu-1 is that of another machine",
    ]
    assert (
        len([text for text in caplog.messages if "registration of node gpu-1 with http://queen:8080 succeeded" in text])
        == 1
    )


async def test_outage_and_its_end_are_logged_once(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with scene() as play:
        play.queen.will([Registered(""), HeartbeatAccepted(1000), *[NoAnswer("timeout")] * 4])
        await play.queen.until_asked(8)
    messages = [text for text in caplog.messages if "heartbeat" in text]
    assert [text.partition(":8080")[0] for text in messages] == [
        "no answer from http://queen",
        "http://queen",
    ]


@pytest.mark.parametrize(
    ("heartbeat", "words"),
    [
        (Rejected("it answers 400: pools: unknown"), "it answers 400: pools: unknown"),
        (NodeUnknown(), "it forgets this node as soon as it has registered"),
    ],
)
async def test_alternating_outcomes_do_not_fill_the_log(
    heartbeat: Outcome, words: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with scene() as play:
        caplog.clear()
        play.queen.will([outcome for _turn in range(400) for outcome in (Registered(""), heartbeat)])
        await trio.sleep(600)
        messages = list(caplog.messages)
        assert messages == [
            "registration of node gpu-1 with http://queen:8080 succeeded; its address is http://192.0.2.7:9200",
            f"registration of node gpu-1 refused by http://queen:8080: {words}",
        ]
        play.queen.answers.clear()
        await play.queen.until_asked(len(play.queen.asked) + 3)
        await trio.testing.wait_all_tasks_blocked()
        assert caplog.messages[2:] == ["http://queen:8080 answers the heartbeats of node gpu-1 again"]


MOODS: tuple[Outcome, ...] = (
    Registered("welcome"),
    HeartbeatAccepted(1),
    HeartbeatAccepted(3_600_000),
    NodeUnknown(),
    Rejected("it answers 403: no"),
    Rejected("it answers 409: another machine"),
    NoAnswer("it answers 503: starting"),
    NoAnswer("no answer within 5 s"),
)


@pytest.mark.parametrize("seed", range(20))
async def test_any_queen_is_retried_without_flooding_and_left_once(
    seed: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dice = random.Random(seed)
    moods = dice.sample(MOODS, dice.randint(1, len(MOODS)))
    async with scene() as play:
        play.queen.will(dice.choices(moods, k=500))
        for _turn in range(300):
            await trio.sleep(dice.expovariate(2))
            play.engine(dice.choice([READY, GONE]))
        times = play.queen.times
        assert all(later - earlier > 0.2 for earlier, later in zip(times, times[10:], strict=False))
        assert len(caplog.messages) < len(times) + 310  # and 300 are of the pool
        play.queen.answers.clear()
        play.engine(LOADING)
        await trio.sleep(12)
        play.engine(READY)
        await trio.sleep(1)
        assert play.agent.view.registered
        assert play.queen.beats[-1].pools[0].ready
        await play.agent.leave()
        assert play.queen.order.count("forget") == 1


async def test_warning_of_the_queen_is_logged(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async with scene() as play:
        play.queen.will([Registered("", "heartbeats of 10 s are slower than ORCHESTRATORD_NODE_TIMEOUT_MS=5000")])
        await play.queen.until_asked(2)
    assert "registration of node gpu-1 with http://queen:8080: heartbeats of 10 s are slower" in caplog.text


async def test_loopback_address_is_logged_as_a_problem(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async def loopback() -> str:
        return "http://127.0.0.1:9200"

    async with scene(address=loopback) as play:
        await play.queen.until_asked(2)
    assert "http://127.0.0.1:9200 is reachable only from this machine" in caplog.text


async def test_unknown_address_is_looked_up_again(autojump_clock: Clock) -> None:
    known = False

    async def later() -> str:
        if known:
            return "http://192.0.2.7:9200"
        raise AddressUnknown("no local address has a route to queen: no such host")

    async with scene(address=later) as play:
        await trio.sleep(60)
        assert play.queen.asked == []
        assert "no local address has a route to queen" in play.agent.line
        known = True
        await play.queen.until_asked(2)


async def test_changed_gpus_cause_a_new_registration(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.queen.until_asked(2)
        play.registry.set_gpus(TWO_GPUS)
        await play.queen.until_asked(4)
    assert play.queen.order == ["register", "heartbeat", "register", "heartbeat"]
    assert len(play.queen.registrations[-1].capabilities.gpus) == 2


async def test_hanging_driver_delays_registration_by_3_seconds(autojump_clock: Clock) -> None:
    began_s = trio.current_time()
    async with scene(gpus=None) as play:
        await play.queen.until_asked(1)
    assert play.queen.times[0] - began_s == pytest.approx(3)


async def test_leaving_deregisters_and_sends_nothing_more(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with scene() as play:
        await play.queen.until_asked(2)
        await trio.testing.wait_all_tasks_blocked()
        await play.agent.leave()
        play.engine()
        await trio.sleep(100)
    assert play.queen.order == ["register", "heartbeat", "forget"]
    assert "registration of node gpu-1 with http://queen:8080 withdrawn" in caplog.text


async def test_unregistered_node_leaves_without_a_request(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will([Rejected("node id gpu-1 is that of another machine")] * 10)
        await play.queen.until_asked(2)
        await play.agent.leave()
    assert "forget" not in play.queen.order


async def test_silent_queen_delays_a_stop_by_2_seconds(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.queen.until_asked(2)
        await trio.testing.wait_all_tasks_blocked()
        play.queen.mute = True
        began_s = trio.current_time()
        await play.agent.leave()
        assert trio.current_time() - began_s == pytest.approx(LEAVE_S)


async def test_status_line_reports_the_registration(autojump_clock: Clock) -> None:
    async with scene() as play:
        play.queen.will(
            [
                Rejected("it answers 401: a token is needed"),
                Registered(""),
                HeartbeatAccepted(1000),
                NoAnswer("timeout"),
            ]
        )
        shown = [play.agent.line]
        with trio.move_on_after(5):
            while True:
                await play.agent.changed(shown[-1])
                shown.append(play.agent.line)
    assert shown == [
        "registering with http://queen:8080",
        "not registered with http://queen:8080: it answers 401: a token is needed",
        "registered with http://queen:8080",
        "no answer from http://queen:8080: timeout",
        "registered with http://queen:8080",
    ]


async def test_each_request_carries_the_instance_id(autojump_clock: Clock) -> None:
    async with scene() as play:
        await play.queen.until_asked(2)
    (registration,), (beat,) = play.queen.registrations, play.queen.beats
    assert registration.instance_id is not None
    assert registration.instance_id == beat.instance_id
    async with scene() as other:
        await other.queen.until_asked(1)
    assert other.queen.registrations[0].instance_id != registration.instance_id


async def test_changed_address_is_registered(autojump_clock: Clock) -> None:
    addresses = ["http://192.0.2.7:9200"]

    async def address() -> str:
        return addresses[-1]

    async with scene(address=address) as play:
        await play.queen.until_asked(2)
        addresses.append("http://192.0.2.8:9200")
        await play.queen.until_asked(5)
    assert [registration.address for registration in play.queen.registrations] == addresses
    assert play.queen.order == ["register", "heartbeat", "register", "heartbeat", "heartbeat"]


async def test_warning_with_heartbeats_is_logged_once(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async with scene() as play:
        play.queen.will([Registered(""), *3 * [HeartbeatAccepted(700, "another pool-managerd registers")]])
        await play.queen.until_asked(5)
    assert caplog.text.count("another pool-managerd registers") == 1
