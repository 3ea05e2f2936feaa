"""The declaration of a model source, and the values that its functions take and return.

A source is a module of this package with one `Source`, registered in `engine_provisioner.sources.registry.SOURCES`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_provisioner.fetch.remote_file import RemoteFile, Role
from engine_provisioner.fetch.web import Web
from engine_provisioner.sources.settings import SourceSettings


@dataclass(frozen=True)
class ModelRequest:
    """A model to obtain. `checksum` is sha256:… of its (first) file; `cache_dir` overrides where models are stored;
    `refresh`: ask the source even if the model is on disk; `gguf`: the model must be a GGUF file."""

    ref: str
    checksum: str | None = None
    cache_dir: Path | None = None
    quant: str | None = None
    refresh: bool = False
    gguf: bool = True

    @property
    def sha256(self) -> str | None:
        """The checksum as 64 hex digits."""
        return self.checksum.removeprefix("sha256:") if self.checksum else None


@dataclass(frozen=True)
class SourceContext:
    """What all sources share. `cache_dir` is absolute; `home` and
    `runtime_dir` ($XDG_RUNTIME_DIR): for files of other tools, such as ~/.aws."""

    cache_dir: Path
    settings: SourceSettings
    home: Path | None = None
    runtime_dir: Path | None = None


def source_context(settings: SourceSettings, cache_dir: Path, environ: Mapping[str, str]) -> SourceContext:
    """Return what all sources share, in a process with this environment."""
    directories = [environ.get(name) for name in ("HOME", "XDG_RUNTIME_DIR")]
    home, runtime = (Path(name) if name else None for name in directories)
    return SourceContext(cache_dir, settings, home, runtime)


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Resolved:
    """The files behind a reference. `finish` blocks; it is called when all are on disk, before the model is used."""

    ref: str
    revision: str | None
    files: tuple[RemoteFile, ...]
    finish: Callable[[], None] = _nothing


@dataclass(frozen=True)
class StoredPart:
    """A complete file on disk. `sha256`, 64 hex digits: verified before the file is used; `authority`: whose it is."""

    path: Path
    role: Role = "model"
    sha256: str | None = None
    authority: str = "the pools file requires"


@dataclass(frozen=True)
class Stored:
    """A model that is complete on disk. The first part has the role `model`."""

    revision: str | None
    parts: tuple[StoredPart, ...]


@dataclass(frozen=True)
class Source:
    """A kind of model reference."""

    prefixes: tuple[str, ...]
    example: str
    """How messages show the form of a reference."""
    check: Callable[[str], None]
    """Raise ValueError, with a text that follows the name of the key, if a reference is malformed."""
    stored: Callable[[ModelRequest, SourceContext], Stored | None]
    """Return the model if it is on disk. Blocks; raises OSError and ProvisioningFailure."""
    resolve: Callable[[ModelRequest, SourceContext, Web], Awaitable[Resolved]] | None
    """Ask the source which files to download. Raises ProvisioningFailure. None: models of this source are local files
    that belong to somebody else, and are never fetched nor removed."""
    takes_quant: bool = False
    """Whether a reference may leave the quantization to the key `quant`."""
