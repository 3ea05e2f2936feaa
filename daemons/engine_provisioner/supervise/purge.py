"""Purge of a pool: remove what only this pool uses from the cache, so that its next load fetches everything again."""

import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from engine_provisioner.cache.model_cache import ModelCache, ModelInUse, UnknownModel
from engine_provisioner.engine import Program
from engine_provisioner.memory.loads import Loads
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.registry import source_of
from engine_provisioner.supervise.member import Member
from engine_provisioner.supervise.pool_set import PoolSet
from engine_provisioner.supervise.preparation import load_key
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.reloads import PoolPurged

IDLE = (PoolState.UNLOADED, PoolState.FAILED)


class PoolBusy(Exception):
    """The pool is not unloaded, or it is being changed."""


@dataclass
class Freed:
    """What a purge has freed so far, and what it has left to others."""

    bytes: int = 0
    kept: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Purges:
    """Purges pools. Owns nothing; the models belong to `cache`, engines are below `cache_dir`."""

    pools: PoolSet
    reports: PoolReports
    cache: ModelCache
    loads: Loads
    cache_dir: Path

    async def purge(self, pool_id: str) -> PoolPurged:
        """Remove the model and the engine of an unloaded pool, if no other pool uses them.

        Files of the operator stay, also below the cache: models of file:, pinned models, engines behind a link.
        Raises PoolBusy and OSError.
        """
        report = self.reports.report(pool_id)
        if report is None or report.state not in IDLE or self.pools.is_changing(pool_id):
            raise PoolBusy
        member, freed = self.pools.member(pool_id), Freed()
        await self._remove_model(member, freed)
        await self._remove_engine(member, freed)
        if report.state is PoolState.UNLOADED and self.pools.member(pool_id) is member and not member.wanted.loaded:
            await member.reporter.unloaded("it was purged: the next load fetches engine and model again")
        return PoolPurged(pool_id=pool_id, freed_bytes=freed.bytes, kept=freed.kept)

    async def _remove_model(self, member: Member, freed: Freed) -> None:
        if member.prepared:
            await trio.to_thread.run_sync(self.loads.remove, load_key(member.pool, member.prepared))
        if member.pool.model is None:
            return
        ref, name = member.pool.model.ref, model_name(member.pool.model.ref)
        known = await self.cache.known(ref)
        if source_of(ref).resolve is None:
            freed.kept.append(f"{name}: it was not downloaded")
        elif known is not None and known.model.pinned:
            freed.kept.append(f"{name}: it is pinned")
        else:
            try:
                freed.bytes += await self.cache.remove(ref, of_pool=member.pool.id)
            except ModelInUse as error:
                freed.kept.append(f"{name}: used by {', '.join(error.pools)}")
            except UnknownModel:
                return

    async def _remove_engine(self, member: Member, freed: Freed) -> None:
        program = member.prepared.engine.program if member.prepared else None
        tree = owned_tree(program, self.cache_dir) if program else None
        if tree is None:
            return
        users = [other.pool.id for other in self.pools.others(member.pool.id) if _uses(other, member, tree)]
        if users:
            freed.kept.append(f"the engine: used by {', '.join(users)}")
            return
        freed.bytes += await trio.to_thread.run_sync(size_of_tree, tree)
        await trio.to_thread.run_sync(partial(shutil.rmtree, tree))


def owned_tree(program: Program, cache_dir: Path) -> Path | None:
    """Return the directory of the engine if it is one below `cache_dir`/engines, not reached by a link. Blocks."""
    tree = program.record
    if tree is None or tree.parent != cache_dir / "engines" or tree.is_symlink() or tree.parent.is_symlink():
        return None
    return tree if tree.is_dir() else None


def size_of_tree(tree: Path) -> int:
    """Return the bytes of the files below `tree`. Blocks."""
    return sum(path.lstat().st_size for path in tree.rglob("*") if not path.is_dir())


def _uses(other: Member, member: Member, tree: Path) -> bool:
    if other.pool.provisioning.engine_key == member.pool.provisioning.engine_key:
        return True
    return other.prepared is not None and other.prepared.engine.program.record == tree
