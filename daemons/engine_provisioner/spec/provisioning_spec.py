"""The ways an engine can be had, one model a mode: the table `[pools.provisioning]` of the pools file."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from llama_orch.addresses import is_loopback
from llama_orch.contracts.base import Inbound
from llama_orch.contracts.handoff import loopback_url

Line = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]
PIP = "pip:"


class Mode(Inbound):
    """Base of the modes: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(strict=True)


class External(Mode):
    """An engine that somebody else runs on this machine; it is watched and announced, never started."""

    mode: Literal["external"]
    url: Annotated[Line, AfterValidator(loopback_url)]


class Build(Mode):
    """How to build from source."""

    cmake_flags: list[Line] = []
    generator: Line | None = None
    cache_dir: Line | None = None


class Source(Mode):
    """An engine built on this machine."""

    mode: Literal["source"]
    repo: Line | None = None
    archive: Line | None = None
    ref: Line | None = None
    submodules: bool = False
    build: Build = Build()


class Container(Mode):
    """An engine in a container (podman or docker)."""

    mode: Literal["container"]
    image: Line
    tag: Line = "latest"


def _package(value: str) -> str:
    if value not in ("llama.cpp", "xllamacpp", f"{PIP}xllamacpp"):
        raise ValueError("must be llama.cpp (the distribution's) or pip:xllamacpp (a private install)")
    return f"{PIP}xllamacpp" if value == "xllamacpp" else value


class Package(Mode):
    """An engine from a package: `llama.cpp` as the distribution installed it, or `pip:xllamacpp`, which is
    installed privately under the cache directory."""

    mode: Literal["package"]
    name: Annotated[Line, AfterValidator(_package)]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.+!-]{0,63}$")] | None = None
    allow_package_installs: bool = False


def _download(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return value
    if parts.scheme == "https" and parts.hostname:
        return value
    if parts.scheme == "http" and parts.hostname:
        return value
    raise ValueError("must be https://…, http://… or file:/absolute/path")


class Binary(Mode):
    """A built engine, as an archive or a bare executable. The checksum is required, so http is allowed too."""

    mode: Literal["binary"]
    url: Annotated[Line, AfterValidator(_download)]
    checksum: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    allow_binary_downloads: bool = False


Provisioning = Annotated[External | Source | Container | Package | Binary, Field(discriminator="mode")]


def plain_http_is_local(url: str) -> bool:
    """Whether `url` is not plain http, or plain http to this machine: what is safe without a checksum."""
    parts = urlsplit(url)
    return parts.scheme != "http" or is_loopback(parts.hostname or "")
