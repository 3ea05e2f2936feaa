"""Prompts go to the replica that has computed their beginning, and the metric says how often."""

from contextlib import asynccontextmanager

import trio
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llama_orch.contracts.pools import ReplicaStatus
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, QueenCore, end_events, running_queen

REPLICAS = ("r0", "r1", "r2", "r3")


def replicas(queen: QueenCore, ready: tuple[str, ...] = REPLICAS) -> None:
    found = [
        ReplicaStatus(replica_id=name, url=queen.engine.url, ready=name in ready, slots_total=2, slots_free=2)
        for name in REPLICAS
    ]
    queen.pool(replicas=found)


@asynccontextmanager
async def fleet(**options):
    async with running_queen(**options) as queen:
        replicas(queen)
        yield queen


async def served(queen: QueenCore, prompt: str, **request) -> str | None:
    """Run a task to its end; return the replica."""
    leased = queen.registry.leased
    task = queen.submit(prompt, **request)
    await end_events(task)
    with trio.fail_after(TIMEOUT_S):
        while queen.registry.leased > leased:
            await queen.registry.wait_for_change()
    return task.place.replica_id


def counted(queen: QueenCore) -> dict[str, float]:
    text = generate_latest(queen.metrics.registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {s.labels["result"]: s.value for s in samples if s.name == "orchd_prefix_placements_total"}


async def test_next_turns_follow_their_first_one():
    async with fleet() as queen:
        first = {letter: await served(queen, letter * 2000) for letter in "abc"}
        assert len(set(first.values())) == 3
        for letter in "cab":
            assert await served(queen, letter * 2000 + "more" * 500) == first[letter]
        assert counted(queen) == {"none": 3, "match": 3}


async def test_prompt_leaves_its_replica_while_that_is_busy():
    async with fleet() as queen:
        home = await served(queen, "a" * 2000)
        key = ("p", str(home))
        await queen.registry.lease(key)
        await queen.registry.lease(key)
        assert await served(queen, "a" * 2000) != home
        assert counted(queen)["busy"] == 1
        queen.registry.release(key)
        queen.registry.release(key)


async def test_restarted_replica_attracts_no_prompts():
    async with fleet() as queen:
        home = await served(queen, "a" * 2000)
        replicas(queen, tuple(name for name in REPLICAS if name != home))
        replicas(queen)
        assert await served(queen, "a" * 2000) != home
        assert counted(queen) == {"none": 2}


async def test_cold_hint_and_short_prompts_leave_it_to_the_strategy():
    async with fleet() as queen:
        assert len({await served(queen, "a" * 2000, kv_hint="cold") for _replica in REPLICAS}) == len(REPLICAS)
        assert len({await served(queen, "short") for _replica in REPLICAS}) == len(REPLICAS)
        assert counted(queen) == {}


async def test_disabled_routing_leaves_all_to_the_strategy():
    async with fleet(prefix_routing=False) as queen:
        assert len({await served(queen, "a" * 2000) for _replica in REPLICAS}) == len(REPLICAS)
