"""Provisioning mode `container`: an engine in an image, run by podman or docker.

Owns `engines/container-*/` in the cache directory, with only an engine.json; the runtime owns the images.
"""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import trio
from pydantic import AfterValidator, StringConstraints

from engine_provisioner import engine_record
from engine_provisioner.containers import IMAGE, RUNTIMES
from engine_provisioner.engine import Image, ImageOrder, Program, base_environment
from engine_provisioner.engine_record import EngineRecord
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes.mode import Finding, OneLine, ProvisioningMode, Workspace
from engine_provisioner.modes.planning import EnginePlan, PlanSite, Step, StepState, blocked
from llama_orch.packages import Tool, install_command

ANY = "podman or docker"
TOOLS = {
    "podman": Tool("podman", apt="podman", dnf="podman"),
    "docker": Tool("docker", apt="docker.io", dnf="moby-engine"),
}
INSPECT_S = 20.0


def _image(value: str) -> str:
    if not IMAGE.fullmatch(value):
        raise ValueError("must be the name of an image, as in ghcr.io/ggml-org/llama.cpp, without a transport")
    return value


class ContainerMode(ProvisioningMode):
    """An engine in a container. `image` may end with @sha256:… instead of having a tag."""

    mode: Literal["container"]
    image: Annotated[OneLine, AfterValidator(_image)]
    tag: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")] = "latest"
    runtime: Literal["podman", "docker"] | None = None

    @property
    def engine_key(self) -> str:
        """The image: it is pulled once for all pools."""
        return f"container-{self.reference}"

    @property
    def reference(self) -> str:
        """The image with its tag or digest."""
        return self.image if self._has_version else f"{self.image}:{self.tag}"

    @property
    def _has_version(self) -> bool:
        return "@" in self.image or ":" in self.image.rpartition("/")[2]

    def problems(self) -> Iterator[Finding]:
        """Refuse two versions of one image."""
        if self._has_version and "tag" in self.model_fields_set:
            yield ("provisioning", "tag"), "contradicts image, which has a tag or digest already"

    async def obtain(self, workspace: Workspace) -> Program:
        """Return the engine in its image, which is pulled unless it is here. Raises ProvisioningFailure."""
        runtime, path = await trio.to_thread.run_sync(find_runtime, self.runtime)
        workspace.deadline.rest("pulling the image")
        await workspace.report(f"looking for the image {self.reference}")
        image = await workspace.provide_image(ImageOrder(runtime, self.reference, workspace.entry))
        directory = workspace.cache_dir / "engines" / f"container-{image.image_id[:32]}"
        await trio.to_thread.run_sync(_record, directory, image)
        return Program(workspace.entry, path, directory, image)

    async def plan(self, site: PlanSite) -> EnginePlan:
        """Return whether the image is here, as far as the calling user can see."""
        try:
            runtime, _path = await trio.to_thread.run_sync(find_runtime, self.runtime)
        except ProvisioningFailure as failure:
            return EnginePlan((blocked("engine", self.reference, failure),))
        found = await trio.to_thread.run_sync(_is_here, runtime, self.reference)
        state = StepState.PRESENT if found else StepState.PULL
        image = Image(runtime, self.reference, "", "", "", "")
        step = Step("engine", self.reference, state, f"with {runtime}")
        return EnginePlan((step,), site.entry, image=image)


def find_runtime(chosen: str | None) -> tuple[str, Path]:
    """Return the name and the program of the runtime: the chosen one, else podman before docker.

    Blocks; raises ProvisioningFailure.
    """
    names = (chosen,) if chosen else RUNTIMES
    for name in names:
        if found := shutil.which(name, path=base_environment()["PATH"]):
            return name, Path(found)
    command = install_command([TOOLS[names[0]]])
    message = f"mode container needs {chosen or ANY}, which is not installed"
    raise ProvisioningFailure(message, f"Install it: {command}", Retry.AFTER_FIX)


def _is_here(runtime: str, image: str) -> bool:
    command = [runtime, "image", "inspect", image]
    try:
        done = subprocess.run(  # noqa: S603 -- checked names
            command, capture_output=True, timeout=INSPECT_S, check=False, env=base_environment()
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _record(directory: Path, image: Image) -> None:
    """Write engine.json unless it is there. Blocks; raises OSError."""
    if engine_record.read(directory) is None:
        directory.mkdir(parents=True, exist_ok=True)
        digest = image.digest or f"sha256:{image.image_id}"
        made = EngineRecord(mode="container", source=image.name, digest=digest, built_at=datetime.now(UTC))
        engine_record.write(directory, made)
