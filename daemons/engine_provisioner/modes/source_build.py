"""One attempt at mode source: look for the tools, get the source, compile it, publish the engine."""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import trio

from engine_provisioner import checksums
from engine_provisioner.build import machine, publication, toolchain
from engine_provisioner.build.build_log import BuildLog
from engine_provisioner.build.checkout import Checkout, Repository, Unreachable
from engine_provisioner.build.compilation import SILENCE_S, Compilation, compile_engine, failure, progress_in
from engine_provisioner.build.order import SourceOrder
from engine_provisioner.build.recipe import job_count
from engine_provisioner.build.setup import Lacking, Setup, set_up
from engine_provisioner.build.workshop import Workshop, workshop_of
from engine_provisioner.engine import Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes import archives
from engine_provisioner.modes.mode import Workspace
from engine_provisioner.step_deadline import DISK_STEP_S
from llama_orch.files import durable
from llama_orch.telemetry.tracing.spans import step
from llama_orch.urls import without_secrets

log = logging.getLogger(__name__)

REPORT_S = 2.0
SHOWN_DIGITS = 12
RECEIVING = re.compile(r"(?:Receiving|Resolving|Updating) [a-z]+: +(\d+)%")

Progress = Callable[[str], str | None]
"""Returns the progress that a line of output shows."""


@dataclass(frozen=True)
class Source:
    """A source tree. `identity` is the full commit, or the digest of the archive."""

    tree: Path
    identity: str


class SourceBuild:
    """The attempt to get the engine of `order`."""

    def __init__(self, order: SourceOrder, workspace: Workspace) -> None:
        self._order = order
        self._workspace = workspace
        self._workshop: Workshop = workshop_of(order.url, order.build_cache, workspace.cache_dir)
        self._reported_s = -REPORT_S

    async def run(self) -> Program:
        """Return the engine, which is built unless it is there. Raises ProvisioningFailure."""
        try:
            return await self._run()
        except OSError as error:
            where = error.filename or self._workshop.directory
            message = f"cannot build the engine in {where}: {error.strerror or error}"
            hint = "Check free disk space and that engine-provisioner may write there (ReadWritePaths= of its unit)."
            raise ProvisioningFailure(message, hint, Retry.AFTER_FIX) from error

    async def _run(self) -> Program:
        self._workspace.deadline.expect(DISK_STEP_S, "looking for build tools")
        setup = await set_up(self._order)
        if isinstance(setup, Lacking):
            why = f" (CUDA: {setup.cuda})" if setup.cuda and toolchain.CUDA_COMPILER in setup.tools else ""
            return await self._last_built(toolchain.missing_failure(setup.tools, why))
        self._workspace.deadline.rest("waiting for another build of the same source")
        async with self._workshop.locked():
            try:
                identity = await self._identity()
            except Unreachable as failed:
                return await self._last_built(failed)
            if program := await self._finished(setup, identity):
                return program
            source = await self._source(identity)
            if program := await self._finished(setup, source.identity):
                return program
            with step("llama_orch.build", {"llama_orch.build.source": source.identity}):
                return await self._build(setup, source)

    async def _finished(self, setup: Setup, identity: str) -> Program | None:
        """Return the engine of this source if it has been built."""
        key = self._order.key(setup.recipe, identity)
        if program := await self._published(key):
            await self._remember(identity, key)
        return program

    async def _identity(self) -> str:
        """Return what the configured ref or archive is now."""
        if self._order.repo:
            self._workspace.deadline.expect(2 * DISK_STEP_S, "looking up the source")
            return await (await self._checkout(self._order.repo)).look_up(self._order.ref)
        return await self._archive_digest()

    async def _source(self, identity: str) -> Source:
        if self._order.repo:
            await self._workspace.report(f"fetching the source at {shown_identity(identity)}")
            checkout = await self._checkout(self._order.repo)
            commit = await checkout.check_out(identity, self._order.ref, submodules=self._order.submodules)
            return Source(checkout.tree, commit)
        await self._workspace.report("unpacking the source")
        self._workspace.deadline.expect(10 * DISK_STEP_S, "unpacking the source")
        tree = await trio.to_thread.run_sync(self._unpacked, identity)
        return Source(tree, identity)

    async def _checkout(self, url: str) -> Checkout:
        history = BuildLog(self._workshop.directory / "git.log")
        await trio.to_thread.run_sync(history.begin)
        on_line = partial(self._on_line, "fetching the source", percent_of_git)
        return Checkout(Repository(url), self._workshop.directory, self._workshop.environment(), history, on_line)

    async def _build(self, setup: Setup, source: Source) -> Program:
        # tar keeps the old times of files, so that objects of another archive could look newer than this source
        digest = setup.recipe.digest if self._order.repo else setup.recipe.key(source.identity)[:16]
        directory = self._workshop.build_directory(digest)
        history = BuildLog(directory.with_name(f"{directory.name}.log"))
        await trio.to_thread.run_sync(history.begin)
        available = await trio.to_thread.run_sync(machine.available_bytes)
        compilation = Compilation(
            source=source.tree,
            directory=directory,
            recipe=setup.recipe,
            cmake=setup.cmake,
            launcher=setup.ccache,
            jobs=job_count(machine.cores(), available, cuda=setup.cuda is not None),
            env=self._workshop.environment(),
        )
        await self._workspace.report(f"building the engine from {shown_identity(source.identity)}")
        await compile_engine(compilation, history, partial(self._on_line, "building the engine", progress_in))
        self._workspace.deadline.expect(10 * DISK_STEP_S, "publishing the engine")
        how = {
            "commit": source.identity,
            "ref": self._order.ref,
            "flags": list(setup.recipe.flags),
            "generator": setup.recipe.generator,
            "compilers": list(setup.recipe.compilers),
        }
        key = self._order.key(setup.recipe, source.identity)
        tree = publication.engine_directory(self._workspace.cache_dir, key)
        try:
            executable = await trio.to_thread.run_sync(
                publication.publish, directory, tree, without_secrets(self._order.url), how
            )
        except publication.NotBuilt as error:
            raise failure(str(error), history) from error
        await self._remember(source.identity, key)
        return Program((str(executable),), executable, tree)

    async def _published(self, key: str) -> Program | None:
        tree = publication.engine_directory(self._workspace.cache_dir, key)
        on_block = partial(self._workspace.deadline.expect, DISK_STEP_S, "verifying the engine")
        on_block()
        find = partial(publication.executable_in, tree, self._workspace.cache_dir, on_block)
        executable = await trio.to_thread.run_sync(find)
        return Program((str(executable),), executable, tree) if executable else None

    async def _remember(self, identity: str, key: str) -> None:
        await trio.to_thread.run_sync(self._workshop.remember, self._order.configuration, identity, key)

    async def _last_built(self, failed: ProvisioningFailure) -> Program:
        """Return the engine that was built last for this configuration, or raise `failed`."""
        last = await trio.to_thread.run_sync(self._workshop.recall, self._order.configuration)
        program = await self._published(last[1]) if last else None
        if last is None or program is None:
            raise failed
        log.warning("%s: using the engine built from %s", failed, shown_identity(last[0]))
        return program

    async def _archive_digest(self) -> str:
        """Return the digest of the archive, which is downloaded once and then kept. Raises ProvisioningFailure."""
        path, checksum = self._archive_path, self._order.checksum
        on_block = partial(self._workspace.deadline.expect, DISK_STEP_S, "verifying the source")
        on_block()
        hash_it = partial(checksums.digest, path, self._workspace.cache_dir, on_block)
        if not self._is_local:
            found = await trio.to_thread.run_sync(hash_it) if await trio.Path(path).exists() else None
            if found is not None and checksum in (None, found):
                return found
            await trio.Path(path).unlink(missing_ok=True)
            await self._workspace.fetch(self._order.url, path, checksum)
        try:
            if checksum:
                verify = partial(checksums.verify, path, checksum, self._workspace.cache_dir, on_block)
                await trio.to_thread.run_sync(verify)
            return await trio.to_thread.run_sync(hash_it)
        except OSError as error:
            message = f"cannot read the source archive {path}: {error.strerror or error}"
            raise ProvisioningFailure(message, "Correct the key archive.", Retry.AFTER_FIX, [path]) from error

    @property
    def _is_local(self) -> bool:
        return self._order.url.startswith("file:")

    @property
    def _archive_path(self) -> Path:
        return Path(unquote(urlsplit(self._order.url).path)) if self._is_local else self._workshop.directory / "archive"

    def _unpacked(self, digest: str) -> Path:
        """Return the top directory of the source, unpacked unless it is there. Blocks."""
        tree, stamp = self._workshop.directory / "source", self._workshop.directory / "source.digest"
        if not (tree.is_dir() and stamp.exists() and stamp.read_text() == digest):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(tree, ignore_errors=True)
            try:
                archives.unpack(self._archive_path, tree)
            except archives.BadArchive as error:
                raise self._unusable(str(error)) from error
            durable.replace(stamp, digest.encode())
        tops = sorted(tree.rglob("CMakeLists.txt"), key=lambda path: (len(path.parts), path))
        if not tops:
            raise self._unusable("has no CMakeLists.txt")
        return tops[0].parent

    def _unusable(self, why: str) -> ProvisioningFailure:
        message = f"the source archive {without_secrets(self._order.url)} {why}"
        watch = [self._archive_path] if self._is_local else []
        return ProvisioningFailure(message, "Correct the key archive.", Retry.AFTER_FIX, watch)

    async def _on_line(self, doing: str, progress: Progress, line: str) -> None:
        self._workspace.deadline.expect(SILENCE_S + DISK_STEP_S, doing)
        now = trio.current_time()
        if now - self._reported_s >= REPORT_S and (found := progress(line)):
            self._reported_s = now
            await self._workspace.report(f"{doing}: {found}")


def shown_identity(identity: str) -> str:
    """Return a commit or digest as messages show it."""
    return identity.removeprefix("sha256:")[:SHOWN_DIGITS]


def percent_of_git(line: str) -> str | None:
    """Return the progress of git in `line`."""
    found = RECEIVING.search(line)
    return f"{found[1]} %" if found else None
