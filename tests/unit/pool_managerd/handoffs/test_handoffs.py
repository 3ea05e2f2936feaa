"""The handoff loop, with a real directory and a real state file."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.service.watchdog import Pulse
from llama_orch.spool import SpoolReader, watch
from pool_managerd.engines.health import HealthLoop, Probe
from pool_managerd.engines.probing import probe
from pool_managerd.handoffs.handoffs import HandoffLoop, missing_engines
from pool_managerd.handoffs.reports import ReportReader
from pool_managerd.handoffs.state_file import StateFile
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import ProbeResult
from tests.unit.llama_orch.spool.samples import age, publish
from tests.unit.pool_managerd.values import READY, found, handoff, replica, report

NEVER_S = 3600.0
LIMIT_S = 10.0


@dataclass
class Intaking:
    """A running loop and its collaborators."""

    spool: Path
    state: Path
    registry: NodePools
    handoffs: HandoffLoop
    health: HealthLoop

    async def until_known(self, *pool_ids: str) -> None:
        """Return when exactly these pools exist."""
        with trio.fail_after(LIMIT_S):
            while [pool.pool_id for pool in self.registry.pools] != list(pool_ids):
                await self.registry.changed(self.registry.revision)


@asynccontextmanager
async def taking(
    tmp_path: Path, *, deletes: bool = True, interval_s: float = NEVER_S, probe: Probe = probe
) -> AsyncIterator[Intaking]:
    spool, state = tmp_path / "engines", tmp_path / "state"
    spool.mkdir(exist_ok=True)
    store, registry = StateFile(state), NodePools()
    saved = store.load()
    registry.restore(saved)
    metrics = Metrics(registry)
    health = HealthLoop(registry, metrics, probe)
    handoffs = HandoffLoop(
        intake=SpoolReader(spool, moves_bad=True, taken=[] if deletes else [found.identity for found in saved]),
        reports=ReportReader(spool),
        node_pools=registry,
        health=health,
        store=store,
        metrics=metrics,
        interval_s=interval_s,
        deletes=deletes,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(watch, spool, handoffs.bell.ring, interval_s=NEVER_S))
        await nursery.start(handoffs.run, Pulse("handoffs", NEVER_S))
        yield Intaking(spool, state, registry, handoffs, health)
        nursery.cancel_scope.cancel()


async def test_existing_files_are_taken_before_started(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    publish(tmp_path / "engines")
    async with taking(tmp_path) as loop:
        assert [pool.pool_id for pool in loop.registry.pools] == ["default"]


async def test_ready_engine_is_never_reported_unready(tmp_path: Path) -> None:
    published: list[list[bool]] = []

    async def ready(handoff: Handoff, *, describe: bool, extras_s: float) -> ProbeResult:
        await trio.lowlevel.checkpoint()
        return READY

    async def listen(registry: NodePools) -> None:
        while True:
            await registry.changed(registry.revision)
            published.append([replica.ready for pool in registry.pools for replica in pool.replicas])

    async with taking(tmp_path, probe=ready) as loop, trio.open_nursery() as listening:
        listening.start_soon(listen, loop.registry)
        for name in ("r0", "r1", "r0"):
            publish(loop.spool, f"default-{name}.json", replica_id=name, url=f"http://127.0.0.1:2{name[1]}00")
            await loop.handoffs.scan()
        listening.cancel_scope.cancel()
    assert published == [[True], [True, True]]


async def test_hanging_engine_is_added_without_a_probe(tmp_path: Path) -> None:
    async def silent(handoff: Handoff, *, describe: bool, extras_s: float) -> ProbeResult:
        if handoff.pool_id == "silent":
            await trio.sleep_forever()
        return READY

    async with taking(tmp_path, probe=silent) as loop:
        publish(loop.spool, "a.json", pool_id="silent", url="http://127.0.0.1:2001")
        publish(loop.spool, "b.json", pool_id="well", url="http://127.0.0.1:2002")
        await loop.handoffs.scan()
        assert {pool.pool_id: pool.ready for pool in loop.registry.pools} == {"silent": False, "well": True}


async def test_rename_into_the_directory_wakes_the_loop(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        publish(loop.spool)
        await loop.until_known("default")


async def test_polling_finds_files_that_inotify_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_orch.spool.watching.matters", lambda mask, name: False)
    async with taking(tmp_path, interval_s=0.01) as loop:
        publish(loop.spool)
        await loop.until_known("default")


async def test_scan_returns_after_take_save_and_delete(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        for number in range(20):
            publish(loop.spool, f"{number}.json", pool_id=f"p{number:02}", url=f"http://127.0.0.1:{2000 + number}")
        await loop.handoffs.scan()
        assert len(loop.registry.pools) == 20
        assert os.listdir(loop.spool) == []
        assert len(StateFile(loop.state).load()) == 20


async def test_undeleted_file_is_not_taken_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _run in range(2):
        async with taking(tmp_path, deletes=False) as loop:
            if not os.listdir(loop.spool):
                publish(loop.spool)
            await loop.handoffs.scan()
            await loop.handoffs.scan()
            assert [pool.pool_id for pool in loop.registry.pools] == ["default"]
            assert os.listdir(loop.spool) == ["default-r0.json"]
    assert caplog.text.count("handoff taken") == 1


@pytest.mark.parametrize(
    "later", [{"pool_id": "new"}, {"url": "http://127.0.0.1:18081"}], ids=["the port is another pool's", "it has moved"]
)
async def test_outdated_file_is_ignored_after_a_restart(tmp_path: Path, later: dict[str, str]) -> None:
    published = []
    for run in range(3):
        async with taking(tmp_path, deletes=False) as loop:
            if not run:
                age(publish(loop.spool), 20)
                age(publish(loop.spool, "later.json", **later), 10)
                await loop.handoffs.scan()
            published.append([(pool.pool_id, pool.replicas[0].url) for pool in loop.registry.pools])
    url = "http://127.0.0.1:18080"
    assert published == [[(later.get("pool_id", "default"), later.get("url", url))]] * 3


async def test_file_written_while_stopped_is_taken_at_start(tmp_path: Path) -> None:
    async with taking(tmp_path, deletes=False) as loop:
        age(publish(loop.spool))
        await loop.handoffs.scan()
    publish(tmp_path / "engines", "later.json", pool_id="new")
    async with taking(tmp_path, deletes=False) as loop:
        assert [pool.pool_id for pool in loop.registry.pools] == ["new"]


async def test_pools_survive_a_restart(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        publish(loop.spool)
        await loop.handoffs.scan()
    async with taking(tmp_path) as loop:
        assert [pool.pool_id for pool in loop.registry.pools] == ["default"]


async def test_file_is_not_deleted_before_its_pool_is_saved(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        loop.state.write_text("in the way of the directory")
        publish(loop.spool)
        await loop.handoffs.scan()
        assert [pool.pool_id for pool in loop.registry.pools] == ["default"]
        assert os.listdir(loop.spool) == ["default-r0.json"]
        loop.state.unlink()
        await loop.handoffs.scan()
        assert os.listdir(loop.spool) == []


async def test_bad_files_are_moved_aside_and_good_ones_taken(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        (loop.spool / "bad.json").write_text("[]")
        (loop.spool / "link.json").symlink_to("/etc/passwd")
        publish(loop.spool)
        await loop.handoffs.scan()
        assert [pool.pool_id for pool in loop.registry.pools] == ["default"]
        assert os.listdir(loop.spool) == ["rejected"]
        assert len(os.listdir(loop.spool / "rejected")) == 4


async def test_unreadable_directory_is_reported_as_trouble(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        loop.spool.rename(tmp_path / "away")
        loop.spool.write_text("")
        await loop.handoffs.scan()
        assert loop.handoffs.troubles() == [f"{loop.spool} is a link or not a directory; it must be a directory"]


async def test_report_shows_a_pool_without_handoff(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        (loop.spool / "status").mkdir()
        failed = report(PoolState.FAILED, "cuda", last_error="GPU 1 is not there")
        (loop.spool / "status/cuda.json").write_text(json.dumps(failed.model_dump(mode="json", by_alias=True)))
        await loop.handoffs.scan()
        (pool,) = loop.registry.pools
        assert (pool.pool_id, pool.state, pool.last_error) == ("cuda", PoolState.FAILED, "GPU 1 is not there")


def write_report(spool: Path, state: PoolState) -> None:
    """Write engine-provisioner's report of the pool `default`."""
    (spool / "status").mkdir(parents=True, exist_ok=True)
    (spool / "status/default.json").write_text(report(state).model_dump_json(by_alias=True))


async def test_engine_is_probed_at_once_when_its_pool_is_unready(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        publish(loop.spool)
        write_report(loop.spool, PoolState.READY)
        await loop.handoffs.scan()
        await loop.health.bell.wait(0)
        write_report(loop.spool, PoolState.STARTING)
        await loop.handoffs.scan()
        assert await loop.health.bell.wait(0)
        await loop.handoffs.scan()
        assert not await loop.health.bell.wait(0), "only once"


async def test_unloaded_engine_is_neither_known_nor_saved(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        publish(loop.spool)
        await loop.handoffs.scan()
        assert b"default" in (loop.state / "pools.json").read_bytes()
        write_report(loop.spool, PoolState.UNLOADED)
        await loop.handoffs.scan()
        assert loop.registry.replicas == ()
        assert b"default" not in (loop.state / "pools.json").read_bytes()


def reported(spool: Path, pool_id: str = "default", port: int = 18080) -> None:
    """Write engine-provisioner's report with an announced engine."""
    (spool / "status").mkdir(parents=True, exist_ok=True)
    announced = handoff(pool_id, port=port).model_dump(by_alias=True)
    provisioning_report = report(PoolState.READY, pool_id, handoff=announced)
    (spool / f"status/{pool_id}.json").write_text(provisioning_report.model_dump_json(by_alias=True))


async def test_lost_engine_is_found_by_its_report(tmp_path: Path) -> None:
    reported(tmp_path / "engines")
    async with taking(tmp_path) as loop:
        assert [replica.handoff.pool_id for replica in loop.registry.replicas] == ["default"]
        assert b"18080" in (loop.state / "pools.json").read_bytes()
    assert (tmp_path / "engines/status/default.json").exists()


async def test_known_engine_is_not_taken_again_from_its_report(tmp_path: Path) -> None:
    reported(tmp_path / "engines")
    async with taking(tmp_path) as loop:
        first = loop.registry.replicas
        await loop.handoffs.scan()
        assert loop.registry.replicas == first


async def test_two_reports_of_one_address_do_not_alternate(tmp_path: Path) -> None:
    for pool_id in ("a", "b"):
        reported(tmp_path / "engines", pool_id)
    async with taking(tmp_path) as loop:
        await loop.handoffs.scan()
        before = loop.registry.replicas
        for _look in range(3):
            await loop.handoffs.scan()
        assert loop.registry.replicas == before
        assert len(before) == 1


async def test_lost_state_file_is_written_again(tmp_path: Path) -> None:
    async with taking(tmp_path) as loop:
        publish(loop.spool)
        await loop.until_known("default")
        await loop.handoffs.scan()
        saved = (loop.state / "pools.json").read_bytes()
        (loop.state / "pools.json").unlink()
        await loop.handoffs.scan()
        assert (loop.state / "pools.json").read_bytes() == saved


@pytest.mark.parametrize(
    ("announced_at", "known_at", "taken"),
    [("2030-01-02", "2030-01-01", True), ("2030-01-01", "2030-01-01", False), ("2030-01-01", "2030-01-02", False)],
)
def test_newer_report_replaces_an_engine(announced_at: str, known_at: str, taken: bool) -> None:
    announced = found(created_at=f"{announced_at}T00:00:00Z")
    known = replica(created_at=f"{known_at}T00:00:00Z")
    assert missing_engines([announced], [known]) == ([announced] if taken else [])
