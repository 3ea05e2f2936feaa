"""The model cache: which models are on disk, their use, and room for new ones.

Owns `index/` in the cache directory, and removes models from `models/` and `huggingface/hub/`. The records are read for
each call, so that files and records which come and go behind its back are noticed. All disk work runs in one thread at
a time, which makes every call atomic.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from engine_provisioner.cache import eviction
from engine_provisioner.cache.index import Index
from engine_provisioner.cache.on_disk import CacheDirectories, blobs_of, found_models, without
from engine_provisioner.cache.records import CachedModel, ModelUse, key_of
from engine_provisioner.cache.removal import remove_files
from engine_provisioner.engine import LocalModel
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.progress import size_text
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.model_records import ModelRecord, StoredFile

log = logging.getLogger(__name__)

SPARE_BYTES = 64 << 20
"""Kept free on the disk beside a download."""
REPOSITORY = re.compile(r"hf:([^/]+/[^/:@]+)")

Result = TypeVar("Result")


def _now() -> datetime:
    return datetime.now(UTC)


class UnknownModel(Exception):
    """No model on disk has this reference."""


class ModelInUse(Exception):
    """The model is used by `pools`."""

    def __init__(self, pools: Sequence[str]) -> None:
        super().__init__(f"used by {', '.join(pools)}")
        self.pools = tuple(pools)


@dataclass(frozen=True)
class UsedModel:
    """A model on disk and the pools that use it."""

    model: CachedModel
    pools: tuple[str, ...]


class ModelCache:
    """The models below `cache_dir`, at most `limit_bytes` of them; None is no limit.

    `uses` returns the models of all configured and loaded pools, which are never evicted.
    """

    def __init__(
        self,
        cache_dir: Path,
        limit_bytes: int | None = None,
        uses: Callable[[], Sequence[ModelUse]] = tuple,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._directories = CacheDirectories(cache_dir)
        self._index = Index(self._directories.index)
        self._limit = limit_bytes
        self._uses = uses
        self._now = now
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def models(self) -> list[UsedModel]:
        """Return every model on disk, recorded or not, the last used first."""
        uses = self._uses()
        models = await self._in_thread(self._survey)
        models.sort(key=lambda model: (model.used_at, model.record.ref), reverse=True)
        return [UsedModel(model, _pools_of(model, uses)) for model in models]

    async def known(self, ref: str) -> UsedModel | None:
        """Return the model on disk with this reference, None if there is none."""
        names = (ref, model_name(ref))
        return next((used for used in await self.models() if used.model.record.ref in names), None)

    async def record(self, record: ModelRecord) -> None:
        """Record a model that was fetched, and evict others if the limit is exceeded. Raises OSError."""
        await self._in_thread(partial(self._record, record, self._uses()))

    async def touch(self, ref: str) -> None:
        """Note that the model is used now. A model without a record is ignored. Raises OSError."""
        await self._in_thread(partial(self._touch, ref))

    async def used(self, ref: str, model: LocalModel) -> None:
        """Note that a pool or a pull has obtained `model`: record it, or touch its record. Raises nothing."""
        record = ModelRecord(ref, None, (StoredFile(model.path, model.size_bytes, model.digest, "model"),), self._now())
        try:
            if not await self._in_thread(partial(self._touch, ref)):
                await self.record(record)
        except OSError as error:
            log.warning("cannot record the use of %s: %s", model.name, error.strerror or error)

    async def pin(self, ref: str, pinned: bool) -> None:
        """Protect the model from eviction, or no longer. Raises UnknownModel and OSError."""
        await self._in_thread(partial(self._pin, ref, pinned))

    async def remove(self, ref: str, *, force: bool = False, of_pool: str | None = None) -> int:
        """Remove the model; return the bytes freed. Files that were not downloaded are left, without their record.

        Raises UnknownModel, ModelInUse if a pool other than `of_pool` uses it and not `force`, and OSError.
        """
        uses = [use for use in self._uses() if use.pool_id != of_pool]
        return await self._in_thread(partial(self._remove, ref, force, uses))

    async def make_room(self, size_bytes: int, directory: Path, present_bytes: int = 0) -> None:
        """Evict models until a model of `size_bytes` may be stored in `directory`. Raises ProvisioningFailure.

        `present_bytes` of it are there already. They need no room on the disk, but count for the limit, since
        unfinished downloads are not among the models.
        """
        try:
            await self._in_thread(partial(self._make_room, size_bytes, directory, present_bytes, self._uses()))
        except OSError as error:
            message = f"cannot make room in {directory}: {error.strerror or error}"
            raise ProvisioningFailure(message, "Check the cache directory.", Retry.AFTER_FIX) from error

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(work, limiter=self._one_at_a_time)

    def _survey(self) -> list[CachedModel]:
        """Return the models with records, then the files without. Drops records whose files are gone."""
        recorded = [model for model in self._index.load() if self._is_there(model)]
        known = {file.path for model in recorded for file in model.record.files}
        unrecorded = [left for found in found_models(self._directories) if (left := without(found, known))]
        return [self._with_blobs(model) for model in (*recorded, *unrecorded)]

    def _is_there(self, model: CachedModel) -> bool:
        first = model.record.files[0].path
        if first.exists():
            return True
        # a directory that is gone as a whole may be a disk that is not mounted
        if first.parent.parent.exists():
            log.info("the model %s is no longer at %s; its record is removed", model.record.ref, first)
            self._index.remove(model.key)
        return False

    def _with_blobs(self, model: CachedModel) -> CachedModel:
        in_cache = all(self._directories.contains(file.path) for file in model.record.files)
        if model.record.ref.startswith("file:") and not in_cache:
            return replace(model, owned=False)
        return replace(model, blobs=blobs_of(model.record.files))

    def _find(self, ref: str) -> CachedModel:
        """Return the model by its full reference, or by the one without secrets that lists show."""
        models = self._survey()
        keys = (key_of(ref), key_of(model_name(ref)))
        for model in models:
            if model.key in keys:
                return model
        for model in models:
            if model.record.ref == model_name(ref):
                return model
        raise UnknownModel(model_name(ref))

    def _record(self, record: ModelRecord, uses: Sequence[ModelUse]) -> None:
        key = key_of(record.ref)
        before = next((model for model in self._index.load() if model.key == key), None)
        shown = replace(record, ref=model_name(record.ref))
        pinned = before.pinned if before else False
        self._index.write(CachedModel(key, shown, max(record.fetched_at, self._now()), pinned))
        models = self._survey()
        excess = _total(models) - self._limit if self._limit is not None else 0
        if excess > 0 and not self._evict(models, excess, uses, spared=key):
            log.warning("the models exceed the limit by %d bytes; all others are pinned or used by pools", excess)

    def _touch(self, ref: str) -> bool:
        """Return whether the model has a record."""
        key = key_of(ref)
        for model in self._index.load():
            if model.key == key and self._is_there(model):
                self._index.write(replace(model, used_at=self._now()))
                return True
        return False

    def _pin(self, ref: str, pinned: bool) -> None:
        model = self._find(ref)
        if model.pinned != pinned:
            self._index.write(replace(model, pinned=pinned))

    def _remove(self, ref: str, force: bool, uses: Sequence[ModelUse]) -> int:
        model = self._find(ref)
        pools = _pools_of(model, uses)
        if pools and not force:
            raise ModelInUse(pools)
        return self._delete(model, self._survey())

    def _delete(self, model: CachedModel, models: Iterable[CachedModel]) -> int:
        others = [other for other in models if other.key != model.key]
        freed = remove_files(model, others, self._directories) if model.owned else 0
        self._index.remove(model.key)
        return freed

    def _make_room(self, size_bytes: int, directory: Path, present_bytes: int, uses: Sequence[ModelUse]) -> None:
        models = self._survey()
        excess = _total(models) + size_bytes - self._limit if self._limit is not None else 0
        if excess > 0 and not self._evict(models, excess, uses):
            raise self._over_limit(size_bytes, models, uses)
        existing = _nearest_existing(directory)
        missing = size_bytes - present_bytes
        shortage = missing + SPARE_BYTES - shutil.disk_usage(existing).free
        if shortage > 0 and not self._evict(_on_disk_of(existing, self._survey()), shortage, uses):
            free = shutil.disk_usage(existing).free
            message = f"the model needs {size_text(missing)} in {directory}, but {size_text(free)} are free"
            hint = "Free disk space; orchctl models --disk lists the models, orchctl rm removes one."
            raise ProvisioningFailure(message, hint, Retry.AFTER_FIX)

    def _evict(self, models: list[CachedModel], needed: int, uses: Sequence[ModelUse], spared: str = "") -> bool:
        """Remove models that free `needed` bytes; return False, and remove none, if that is impossible."""
        candidates = [
            eviction.Candidate(model.key, model.used_at, _is_protected(model, uses, spared), model.blobs)
            for model in models
        ]
        chosen = eviction.choose(candidates, needed)
        for model in models:
            if model.key in (chosen or ()):
                freed = self._delete(model, models)
                log.info("model %s was evicted to make room: %s", model.record.ref, size_text(freed))
                models = [other for other in models if other.key != model.key]
        return chosen is not None

    def _over_limit(
        self, size_bytes: int, models: Sequence[CachedModel], uses: Sequence[ModelUse]
    ) -> ProvisioningFailure:
        kept = _total([model for model in models if _is_protected(model, uses, "")])
        message = (
            f"the model needs {size_text(size_bytes)}, but of the {size_text(self._limit or 0)} that "
            f"ENGINE_PROVISIONER_CACHE_LIMIT allows, {size_text(kept)} are pinned or used by pools"
        )
        hint = "Raise the limit, or unpin or remove models: orchctl models --disk lists them."
        return ProvisioningFailure(message, hint, Retry.AFTER_FIX)


def _is_protected(model: CachedModel, uses: Sequence[ModelUse], spared: str) -> bool:
    return model.pinned or not model.owned or model.key == spared or bool(_pools_of(model, uses))


def _pools_of(model: CachedModel, uses: Sequence[ModelUse]) -> tuple[str, ...]:
    """Return the pools that use `model`, by its reference, by its path, or without a record by its repository."""
    paths = {file.path for file in model.record.files}
    repository = None if model.recorded else _repository_of(model.record.ref)
    return tuple(
        use.pool_id
        for use in uses
        if key_of(use.ref) == model.key
        or use.path in paths
        or (repository is not None and repository == _repository_of(use.ref))
    )


def _repository_of(ref: str) -> str | None:
    """Return ORG/NAME of an hf: reference in lower case, None for another one."""
    match = REPOSITORY.match(ref)
    return match[1].lower() if match else None


def _total(models: Iterable[CachedModel]) -> int:
    blobs: dict[Hashable, int] = {}
    for model in models:
        blobs |= model.blobs
    return sum(blobs.values())


def _nearest_existing(directory: Path) -> Path:
    return next((path for path in (directory, *directory.parents) if path.exists()), Path("/"))


def _on_disk_of(directory: Path, models: Iterable[CachedModel]) -> list[CachedModel]:
    """Return `models` with only those files whose removal frees space on the file system of `directory`."""
    device = os.stat(directory).st_dev
    return [
        replace(model, blobs={blob: size for blob, size in model.blobs.items() if _device(blob) == device})
        for model in models
    ]


def _device(blob: Hashable) -> object:
    return blob[0] if isinstance(blob, tuple) else None
