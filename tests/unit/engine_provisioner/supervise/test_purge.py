"""A purge removes what only this pool uses, and nothing of others."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from engine_provisioner.cache.model_cache import ModelCache
from engine_provisioner.cache.records import ModelUse
from engine_provisioner.engine import Engine, LocalModel, Program
from engine_provisioner.memory.loads import Load, Loads
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.supervise.preparation import Prepared, load_key
from engine_provisioner.supervise.purge import PoolBusy, Purges
from llama_orch.contracts.pools import PoolState
from tests.unit.engine_provisioner.cache.disk import download, url
from tests.unit.engine_provisioner.pools import CHECKSUM, pool

OTHER_ENGINE = {
    "mode": "binary",
    "url": "https://example.org/other.tar.gz",
    "checksum": "sha256:" + "1" * 64,
    "allow_binary_downloads": True,
}


class Unloaded:
    """A pool that was prepared and is unloaded; `said` is its last report."""

    def __init__(self, spec: Pool, tree: Path) -> None:
        program = Program((str(tree / "bin"),), tree / "bin", tree)
        self.pool = spec
        self.wanted = SimpleNamespace(loaded=False)
        self.reporter = self
        self.prepared = Prepared(Engine(program, "1", frozenset()), LocalModel("m", Path("/m"), 1), ())
        self.said = ""

    async def unloaded(self, detail: str) -> None:
        await trio.lowlevel.checkpoint()
        self.said = detail


class Disk:
    """A cache with the engines and models of some pools."""

    def __init__(self, cache_dir: Path, *pools: Pool) -> None:
        self.cache_dir = cache_dir
        self.members = {spec.id: Unloaded(spec, self._tree(spec)) for spec in pools}
        self.state = PoolState.UNLOADED
        self.changing = False
        uses = [ModelUse(spec.id, spec.model.ref) for spec in pools if spec.model]
        self.cache = ModelCache(cache_dir, None, lambda: uses)
        self.loads = Loads(cache_dir)
        self.purges = Purges(cast(Any, self), cast(Any, self), self.cache, self.loads, cache_dir)

    def _tree(self, spec: Pool) -> Path:
        tree = self.cache_dir / "engines" / spec.provisioning.engine_key[-4:]
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "bin").write_bytes(b"x" * 500)
        return tree

    def member(self, pool_id: str) -> Unloaded:
        return self.members[pool_id]

    def others(self, pool_id: str) -> Sequence[Unloaded]:
        return [member for other, member in self.members.items() if other != pool_id]

    def is_changing(self, _pool_id: str) -> bool:
        return self.changing

    def report(self, _pool_id: str) -> Any:
        return SimpleNamespace(state=self.state)

    async def record(self, name: str) -> Path:
        found = download(self.cache_dir, name)
        await self.cache.record(found)
        return found.files[0].path


async def test_model_engine_and_measurement_are_removed(tmp_path: Path) -> None:
    disk = Disk(tmp_path, pool(model=url("m")))
    path, member = await disk.record("m"), disk.member("default")
    key = load_key(member.pool, member.prepared)
    disk.loads.save(key, Load(took_s=1.0))
    purged = await disk.purges.purge("default")
    assert (purged.freed_bytes, purged.kept) == (1500, [])
    assert not path.exists()
    assert [*(tmp_path / "engines").iterdir()] == []
    assert disk.loads.last(key) is None
    assert "the next load fetches" in member.said


async def test_what_other_pools_use_stays(tmp_path: Path) -> None:
    disk = Disk(tmp_path, pool(model=url("m")), pool(id="b", model=url("m")))
    path = await disk.record("m")
    purged = await disk.purges.purge("default")
    assert purged.freed_bytes == 0
    assert purged.kept == [f"{url('m')}: used by b", "the engine: used by b"]
    assert path.exists()
    assert (tmp_path / "engines" / CHECKSUM[-4:] / "bin").exists()


async def test_pinned_model_stays(tmp_path: Path) -> None:
    disk = Disk(tmp_path, pool(model=url("m")))
    path = await disk.record("m")
    await disk.cache.pin(url("m"), True)
    assert f"{url('m')}: it is pinned" in (await disk.purges.purge("default")).kept
    assert path.exists()


async def test_file_of_the_operator_stays(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"x")
    disk = Disk(tmp_path / "cache", pool(model=f"file:{model}"), pool(id="b", provisioning=OTHER_ENGINE))
    purged = await disk.purges.purge("default")
    assert (purged.freed_bytes, purged.kept) == (500, [f"file:{model}: it was not downloaded"])
    assert model.exists()
    assert (tmp_path / "cache/engines" / ("1" * 4)).exists()


async def test_engine_behind_a_link_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/engines").symlink_to(elsewhere)
    disk = Disk(tmp_path / "cache", pool(model=url("m")))
    assert (await disk.purges.purge("default")).freed_bytes == 0
    assert (elsewhere / CHECKSUM[-4:] / "bin").exists()


async def test_loaded_or_changing_pool_is_refused(tmp_path: Path) -> None:
    disk = Disk(tmp_path, pool(model=url("m")))
    disk.changing = True
    with pytest.raises(PoolBusy):
        await disk.purges.purge("default")
    disk.changing, disk.state = False, PoolState.READY
    with pytest.raises(PoolBusy):
        await disk.purges.purge("default")
