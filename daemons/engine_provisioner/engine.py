"""Values shared by all steps of a pool: programs, engines, models on disk, and the commands that start engines."""

import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION_LIMIT = 256
INHERITED_VARIABLES = ("PATH", "HOME", "LANG")


@dataclass(frozen=True)
class ImageOrder:
    """An image to be made available: a name with tag or digest, as `runtime` takes it.

    `entry` are the words before an engine's arguments.
    """

    runtime: str
    image: str
    entry: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """An image on this machine. `digest` is that of its manifest, empty if it came from no registry.

    `version` and `help` are what its engine prints for --version and --help, empty if it does not.
    """

    runtime: str
    name: str
    image_id: str
    digest: str
    version: str
    help: str


@dataclass(frozen=True)
class ContainerRun:
    """A container for an engine. `models` is a directory of this machine, mounted read-only at /models."""

    runtime: str
    image: str
    image_id: str
    models: str | None
    devices: tuple[int, ...]

    def document(self) -> dict[str, object]:
        """Return the table `container` of a launch file, as `exec_container` takes it."""
        return {
            "runtime": self.runtime,
            "image": self.image,
            "image_id": self.image_id,
            "models": self.models,
            "devices": list(self.devices),
        }


@dataclass(frozen=True)
class Program:
    """An executable: the first words of its command line, and the file whose change makes it another program.

    `record` is the directory of its engine.json, if it has one. If the program is in an `image`, `argv` are words in
    the container, and `file` is the runtime.
    """

    argv: tuple[str, ...]
    file: Path
    record: Path | None = None
    image: Image | None = None


@dataclass(frozen=True)
class Engine:
    """A program with its version and the options that its --help lists."""

    program: Program
    version: str
    options: frozenset[str]


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine's disk. Clients ask for it by `name`; `digest` is sha256:… if it was verified.

    `mmproj` is the model's projector for images and sound, `template` its chat template, if it has them as files.
    """

    name: str
    path: Path
    size_bytes: int
    digest: str | None = None
    mmproj: Path | None = None
    template: Path | None = None


@dataclass(frozen=True)
class EngineCommand:
    """The command line of an engine. It runs with `env` plus PATH, HOME and LANG, and nothing else.

    In a `container`, `argv` are the words behind the image.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    container: ContainerRun | None = None

    def document(self) -> bytes:
        """Return the launch file for `exec_engine` or `exec_container`. Equal commands give equal bytes."""
        content: dict[str, object] = {"argv": list(self.argv), "env": dict(sorted(self.env.items()))}
        if self.container:
            content["container"] = self.container.document()
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()

    @property
    def port(self) -> int | None:
        """The port that the engine listens on."""
        return port_of(self.argv)


def port_of(argv: tuple[str, ...]) -> int | None:
    """Return the argument of --port (Triton: --http-port) in `argv` if it is a number."""
    for name, value in itertools.pairwise(argv):
        if name in ("--port", "--http-port") and value.isdigit():
            return int(value)
    return None


def base_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the part of this daemon's environment that programs run for a pool get."""
    inherited = {name: environ[name] for name in INHERITED_VARIABLES if name in environ}
    return {"PATH": os.defpath, "LANG": "C.UTF-8"} | inherited
