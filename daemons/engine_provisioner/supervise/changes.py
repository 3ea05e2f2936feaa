"""What a new version of the pools files changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine_provisioner.spec.pool_spec import Pool


@dataclass(frozen=True)
class Changes:
    """The ids of all pools, old and new, each in one of the tuples, in the order of the files."""

    kept: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        parts = [f"{what} {', '.join(ids)}" for what, ids in named if ids]
        return "; ".join([*parts, f"{len(self.kept)} unchanged"])


WITHOUT_ENGINE = {"preload", "keep_alive", "pinned", "group", "timeouts"}
"""Keys that do not concern the engine."""


def same_engine(old: Pool, new: Pool) -> bool:
    """Whether a running engine of `old` serves as one of `new`."""
    return old.model_dump(exclude=WITHOUT_ENGINE) == new.model_dump(exclude=WITHOUT_ENGINE)


def changes(old: Mapping[str, Pool], new: Sequence[Pool]) -> Changes:
    """Compare the pools that are supervised, by id, with those of the pools files."""
    ids = {pool.id for pool in new}
    common = [pool for pool in new if pool.id in old]
    return Changes(
        kept=tuple(pool.id for pool in common if pool.same_as(old[pool.id])),
        changed=tuple(pool.id for pool in common if not pool.same_as(old[pool.id])),
        added=tuple(pool.id for pool in new if pool.id not in old),
        removed=tuple(pool_id for pool_id in old if pool_id not in ids),
    )
