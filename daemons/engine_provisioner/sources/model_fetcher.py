"""Obtain a model from its source: from the disk if it is there, else by downloading and verifying its files."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from engine_provisioner import checksums
from engine_provisioner.engine import LocalModel
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch import completion, downloader
from engine_provisioner.fetch.bandwidth import Bandwidth
from engine_provisioner.fetch.progress import FetchProgress, Meter
from engine_provisioner.fetch.remote_file import GGUF_ROLES, RemoteFile
from engine_provisioner.fetch.single_flight import SingleFlight
from engine_provisioner.fetch.terms import Terms, no_room
from engine_provisioner.fetch.web import CONNECT_S, Web
from engine_provisioner.sources import file
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.model_records import ModelKeeper, ModelRecord, StoredFile
from engine_provisioner.sources.registry import source_of
from engine_provisioner.sources.source import ModelRequest, Resolved, Source, SourceContext, Stored, StoredPart
from engine_provisioner.step_deadline import DISK_STEP_S


async def _ignore(_progress: FetchProgress) -> None:
    return None


@dataclass(frozen=True)
class Watch:
    """The interface for the progress of a fetch.

    - `idle_s`: how long a server may send nothing
    - `expect`: called with the seconds within which the next step must end, and its name; also from threads
    - `on_progress`: called with the progress of all files of the model, a few times a second
    - `on_bytes`: called with the bytes that came from the network
    """

    idle_s: float = 60.0
    expect: Callable[[float, str], None] = lambda _within_s, _step: None
    on_progress: Callable[[FetchProgress], Awaitable[None]] = _ignore
    on_bytes: Callable[[int], None] = lambda _count: None


class ModelFetcher:
    """Obtains models. What several callers want is fetched once."""

    def __init__(self, context: SourceContext, bandwidth: Bandwidth, keeper: ModelKeeper) -> None:
        self.context = context
        self._bandwidth = bandwidth
        self._keeper = keeper
        self._flights = SingleFlight()

    async def obtain(self, request: ModelRequest, watch: Watch) -> LocalModel:
        """Return the model, complete and verified. Raises ProvisioningFailure."""
        source = source_of(request.ref)
        watch.expect(float("inf"), "waiting for another pool that fetches the same model")
        async with self._flights.hold(request.ref):
            watch.expect(DISK_STEP_S, "looking for the model")
            stored = await self._stored(source, request)
            if source.resolve is not None and (stored is None or request.refresh):
                await self._fetch(source, request, watch)
                stored = await self._stored(source, request)
            if stored is None:
                message = f"{model_name(request.ref)} is not complete on disk, although it was fetched"
                raise ProvisioningFailure(message, "Check that nothing else removes files from the cache.")
            found = await self._checked(source, request, stored, watch)
        await self._keeper.used(request.ref, found)
        return found

    async def fetch_file(self, remote: RemoteFile, watch: Watch) -> None:
        """Download one file that is no model, such as an engine. Raises ProvisioningFailure."""
        async with Web(watch.idle_s) as web:
            await self._download((remote,), web, watch)

    async def _stored(self, source: Source, request: ModelRequest) -> Stored | None:
        return await trio.to_thread.run_sync(source.stored, request, self.context)

    async def _fetch(self, source: Source, request: ModelRequest, watch: Watch) -> None:
        assert source.resolve is not None
        async with Web(watch.idle_s) as web:
            watch.expect(10 * (CONNECT_S + watch.idle_s), f"asking the source of {model_name(request.ref)}")
            resolved = await source.resolve(request, self.context, web)
            digests = await self._download(resolved.files, web, watch)
        watch.expect(DISK_STEP_S, "storing the model")
        with completion.disk_failures(resolved.files[0]):
            await trio.to_thread.run_sync(self._complete, resolved, digests)
            files = await trio.to_thread.run_sync(_stored_files, resolved, digests)
        record = ModelRecord(request.ref, resolved.revision, files, datetime.now(UTC))
        await self._keeper.record(record)

    async def _download(self, files: tuple[RemoteFile, ...], web: Web, watch: Watch) -> dict[Path, str]:
        """Download the files that are not there yet, one after the other. Return the SHA-256 of each by target."""
        absent = [remote for remote in files if not await trio.Path(remote.target).exists()]
        sizes = [remote.size for remote in absent]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        if total is not None and len(absent) > 1:
            await self._keeper.make_room(total, absent[0].target.parent)
        meter, before, digests = Meter(time.monotonic), 0, dict[Path, str]()
        for remote in absent:
            counted: int | None = None

            async def on_progress(done: int, size: int | None, before: int = before) -> None:
                nonlocal counted
                if counted is not None and done > counted:
                    watch.on_bytes(done - counted)
                counted = done
                await watch.on_progress(meter.progress(before + done, total or (size if len(absent) == 1 else None)))

            make_room = no_room if remote.role == "engine" else self._keeper.make_room  # the limit is for models
            terms = Terms(self._bandwidth, on_progress, watch.expect, make_room)
            digests[remote.target] = await downloader.fetch(remote, web, terms)
            before += counted or 0
        return digests

    def _complete(self, resolved: Resolved, digests: dict[Path, str]) -> None:
        resolved.finish()
        for remote in resolved.files:
            if remote.target in digests:  # so that it is not read again to verify it
                checksums.remember(remote.opened_at, f"sha256:{digests[remote.target]}", self.context.cache_dir)

    async def _checked(self, source: Source, request: ModelRequest, stored: Stored, watch: Watch) -> LocalModel:
        on_block = partial(watch.expect, DISK_STEP_S, "checking the model")
        sizes = []
        for part in stored.parts:
            on_block()
            try:
                sizes.append(await trio.to_thread.run_sync(self._check, part, on_block, request.gguf))
            except ProvisioningFailure as failure:
                if source.resolve is None:
                    raise
                await trio.to_thread.run_sync(_remove, part.path)  # the next attempt downloads it again
                raise ProvisioningFailure(failure.message, failure.hint, Retry.REFETCH) from failure
        first = stored.parts[0]
        by_role = {part.role: part.path for part in stored.parts}
        digest = f"sha256:{first.sha256}" if first.sha256 else None
        return LocalModel(
            model_name(request.ref), first.path, sum(sizes), digest, by_role.get("mmproj"), by_role.get("template")
        )

    def _check(self, part: StoredPart, on_block: checksums.OnBlock, gguf: bool) -> int:
        """Return the size of a verified file. Blocks; raises ProvisioningFailure."""
        size = (file.check_gguf if gguf and part.role in GGUF_ROLES else file.check_any)(part.path)
        if part.sha256:
            try:
                checksums.verify(
                    part.path, f"sha256:{part.sha256}", self.context.cache_dir, on_block, authority=part.authority
                )
            except OSError as error:
                raise file.unusable(part.path, f"cannot be read completely ({error.strerror or error})", "") from error
        return size


def _stored_files(resolved: Resolved, digests: dict[Path, str]) -> tuple[StoredFile, ...]:
    def stored(remote: RemoteFile) -> StoredFile:
        found = digests.get(remote.target) or remote.sha256
        size = remote.opened_at.stat().st_size
        return StoredFile(remote.opened_at, size, f"sha256:{found}" if found else None, remote.role)

    return tuple(map(stored, resolved.files))


def _remove(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
