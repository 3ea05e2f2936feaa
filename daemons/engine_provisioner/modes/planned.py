"""Provisioning modes that the pools file accepts and this release cannot run: `source` and `container`."""

from collections.abc import Iterator
from typing import Literal

from pydantic import ConfigDict

from engine_provisioner.modes.mode import Finding, OneLine, ProvisioningMode
from llama_orch.contracts.base import Inbound


class Build(Inbound):
    """Build options of mode source."""

    model_config = ConfigDict(strict=True)

    cmake_flags: list[OneLine] = []
    generator: OneLine | None = None
    cache_dir: OneLine | None = None


class SourceMode(ProvisioningMode):
    """An engine built from source on this machine."""

    mode: Literal["source"]
    repo: OneLine | None = None
    archive: OneLine | None = None
    ref: OneLine | None = None
    submodules: bool = False
    build: Build = Build()

    def problems(self) -> Iterator[Finding]:
        """Require exactly one place to get the source from."""
        if (self.repo is None) == (self.archive is None):
            yield ("provisioning",), "mode source needs either repo or archive"


class ContainerMode(ProvisioningMode):
    """An engine in a container (podman or docker)."""

    mode: Literal["container"]
    image: OneLine
    tag: OneLine = "latest"
