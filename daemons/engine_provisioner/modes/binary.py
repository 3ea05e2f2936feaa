"""Provisioning mode `binary`: a built engine that is downloaded, verified against its checksum and unpacked.

Owns `engines/<sha256>/` in the cache directory. A directory appears complete or not at all, so its content is verified.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import trio
from pydantic import AfterValidator, StringConstraints

from engine_provisioner import checksums, engine_record
from engine_provisioner.engine import Program
from engine_provisioner.engine_record import EngineRecord
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes import archives
from engine_provisioner.modes.mode import Finding, OneLine, ProvisioningMode, Workspace
from engine_provisioner.modes.planning import EnginePlan, PlanSite, Step, StepState, blocked
from engine_provisioner.step_deadline import DISK_STEP_S
from llama_orch.files import durable
from llama_orch.urls import without_secrets


def _download_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return value
    if parts.scheme in ("https", "http") and parts.hostname:
        return value
    raise ValueError("must be https://…, http://… or file:/absolute/path")


class BinaryMode(ProvisioningMode):
    """A built engine: an archive or a single executable. Plain http is allowed because the checksum is required."""

    mode: Literal["binary"]
    url: Annotated[OneLine, AfterValidator(_download_url)]
    checksum: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    allow_binary_downloads: bool = False

    @property
    def engine_key(self) -> str:
        """The checksum: the same engine may have several URLs."""
        return self.checksum

    def problems(self) -> Iterator[Finding]:
        """Require the operator's consent to run a downloaded program."""
        if not self.allow_binary_downloads:
            yield (
                ("provisioning",),
                "mode binary runs a downloaded program; allow it by allow_binary_downloads = true",
            )

    async def obtain(self, workspace: Workspace) -> Program:
        """Return the engine, unpacked into the cache once. Raises ProvisioningFailure."""
        on_block = partial(workspace.deadline.expect, DISK_STEP_S, "verifying the engine")
        on_block()
        tree = workspace.cache_dir / "engines" / self._digest
        if not await trio.Path(tree).is_dir():
            source = await self._verified_source(workspace, on_block)
            await trio.to_thread.run_sync(_unpack, source, tree, without_secrets(self.url))
            if source.is_relative_to(workspace.cache_dir):
                await trio.Path(source).unlink(missing_ok=True)
        try:
            executable = await trio.to_thread.run_sync(archives.find_executable, tree)
        except archives.BadArchive as error:
            raise _unusable(self.url, error) from error
        return Program((str(executable),), executable, tree)

    async def plan(self, site: PlanSite) -> EnginePlan:
        """Return whether the engine is unpacked in the cache, or what has to be fetched."""
        tree, shown = site.cache_dir / "engines" / self._digest, without_secrets(self.url)
        gates = ("allow_binary_downloads",)
        if await trio.Path(tree).is_dir():
            try:
                executable = await trio.to_thread.run_sync(archives.find_executable, tree)
            except archives.BadArchive as error:
                return EnginePlan((blocked("engine", shown, _unusable(shown, error)),), gates=gates)
            return EnginePlan((Step("engine", shown, StepState.PRESENT),), (str(executable),), tree, gates=gates)
        path = self._local_path
        if path is None:
            step = Step("engine", shown, StepState.DOWNLOAD, size_bytes=await site.size_of(self.url))
        elif await trio.Path(path).is_file():
            step = Step("engine", shown, StepState.INSTALL, "unpack it into the cache")
        else:
            step = blocked("engine", shown, _unreadable(path, "No such file or directory"))
        return EnginePlan((step,), gates=gates)

    @property
    def _local_path(self) -> Path | None:
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def _digest(self) -> str:
        return self.checksum.removeprefix("sha256:")

    async def _verified_source(self, workspace: Workspace, on_block: checksums.OnBlock) -> Path:
        path = self._local_path
        if path is None:
            download = workspace.cache_dir / "downloads" / self._digest
            await workspace.fetch(self.url, download, self.checksum)
            return download
        try:
            verify = partial(checksums.verify, path, self.checksum, workspace.cache_dir, on_block)
            await trio.to_thread.run_sync(verify)
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error
        return path


def _unreadable(path: Path, why: str) -> ProvisioningFailure:
    return ProvisioningFailure(f"cannot read the engine {path}: {why}", "Correct url.", Retry.AFTER_FIX, [path])


def _unpack(source: Path, tree: Path, url: str) -> None:
    draft = tree.with_name(f".{tree.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        archives.unpack(source, draft)
        executable = archives.find_executable(draft)
        engine_record.write(draft, EngineRecord.of(draft, "binary", url, executable))
        draft.rename(tree)
        durable.sync_directory(tree.parent)
    except archives.BadArchive as error:
        raise _unusable(str(source), error) from error
    except OSError as error:
        message = f"cannot unpack the engine into {tree}: {error.strerror or error}"
        hint = "Check free disk space and that engine-provisioner owns the directory."
        raise ProvisioningFailure(message, hint) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unusable(where: str, error: archives.BadArchive) -> ProvisioningFailure:
    hint = "Its checksum matches the pools file, so the file is not damaged: set another url and checksum."
    return ProvisioningFailure(f"the engine at {where} {error}", hint, Retry.NEVER)
