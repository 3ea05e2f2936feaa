"""Provisioning mode `source`: llama-server, compiled on this machine from a git repository or an archive.

Owns `builds/` and `engines/source-*` in the cache directory.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

from engine_provisioner.build.order import SourceOrder
from engine_provisioner.engine import Program
from engine_provisioner.modes.mode import Finding, OneLine, ProvisioningMode, Workspace
from engine_provisioner.modes.planning import EnginePlan, PlanSite
from engine_provisioner.modes.source_build import SourceBuild
from engine_provisioner.modes.source_keys import Build, archive_url, git_ref, repository_url
from engine_provisioner.modes.source_plan import plan_build
from llama_orch.addresses import is_loopback


class SourceMode(ProvisioningMode):
    """An engine built from source on this machine."""

    mode: Literal["source"]
    repo: Annotated[OneLine, AfterValidator(repository_url)] | None = None
    archive: Annotated[OneLine, AfterValidator(archive_url)] | None = None
    checksum: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    ref: Annotated[OneLine, AfterValidator(git_ref)] | None = None
    submodules: bool = False
    build: Build = Build()

    @property
    def engine_key(self) -> str:
        """The source and how it is built: what it comes to is known once the source is there."""
        keys = self.model_dump(mode="json", exclude={"build": {"cache_dir"}})
        return "source-" + hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()

    def problems(self) -> Iterator[Finding]:
        """Require exactly one place to get the source from, and no key that has no effect there."""
        if (self.repo is None) == (self.archive is None):
            yield ("provisioning",), "mode source needs either repo or archive"
            return
        if self.archive is None:
            if self.checksum:
                yield ("provisioning", "checksum"), "is for archive only; name a commit in ref"
            return
        for key, given in (("ref", self.ref is not None), ("submodules", self.submodules)):
            if given:
                yield ("provisioning", key), "is for repo only; an archive has one version"
        parts = urlsplit(self.archive)
        if parts.scheme == "http" and not self.checksum and not is_loopback(parts.hostname or ""):
            yield ("provisioning", "archive"), "plain http is allowed with a checksum, or from this machine, only"

    async def obtain(self, workspace: Workspace) -> Program:
        """Return the engine, built once for each version of source, flags and compilers. Raises ProvisioningFailure."""
        return await SourceBuild(self._order(workspace.gpus), workspace).run()

    async def plan(self, site: PlanSite) -> EnginePlan:
        """Return whether the engine is built, or what the build needs. Branches and tags are not looked up."""
        return await plan_build(self._order(site.gpus), site)

    def _order(self, gpus: tuple[int, ...]) -> SourceOrder:
        return SourceOrder(
            repo=self.repo,
            archive=self.archive,
            checksum=self.checksum,
            ref=self.ref,
            submodules=self.submodules,
            cmake_flags=tuple(self.build.cmake_flags),
            generator=self.build.generator,
            build_cache=self.build.cache_dir,
            gpus=gpus,
        )
