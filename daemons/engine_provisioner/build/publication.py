"""Publishing a built engine: `engines/source-KEY/` appears complete or not at all."""

import os
import shutil
from pathlib import Path
from typing import Any

from engine_provisioner import checksums, engine_record
from engine_provisioner.build.recipe import TARGET
from engine_provisioner.engine_record import EngineRecord
from llama_orch.files import durable

PREFIX = "source-"


class NotBuilt(Exception):
    """The build directory has no executable of the target."""


def engine_directory(cache_dir: Path, key: str) -> Path:
    """Return the directory of the engine with this key."""
    return cache_dir / "engines" / f"{PREFIX}{key}"


def executable_in(directory: Path, cache_dir: Path, on_block: checksums.OnBlock) -> Path | None:
    """Return the executable of a published engine if it is the one that was built, else None. Blocks."""
    record = engine_record.read(directory)
    if record is None or record.executable is None:
        return None
    path = directory / record.executable
    try:
        return path if checksums.digest(path, cache_dir, on_block) == record.digest else None
    except OSError:
        return None


def publish(build: Path, target: Path, source: str, how: dict[str, Any]) -> Path:
    """Copy the executable and the shared libraries of `build` to `target`; return the executable there.

    The record says that it was built from `source`, and `how`. Paths below the build directory stay the same: they are
    what the executable looks its libraries up by. Blocks; raises NotBuilt and OSError.
    """
    executable = _executable(build)
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for path in (executable, *_libraries(build)):
            _copy(path, draft / path.relative_to(build))
        name = executable.relative_to(build)
        engine_record.write(draft, EngineRecord.of(draft, "source", source, draft / name, **how))
        for directory, _names, _files in os.walk(draft):
            os.chmod(directory, 0o750)  # noqa: S103 -- the group has the user that runs engines
            durable.sync_directory(Path(directory))
        shutil.rmtree(target, ignore_errors=True)  # one that does not have the digest of its record
        draft.rename(target)
        durable.sync_directory(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target / name


def _executable(build: Path) -> Path:
    found = [path for path in build.rglob(TARGET) if path.is_file() and os.access(path, os.X_OK)]
    if not found:
        raise NotBuilt(f"the build made no executable {TARGET}")
    return min(found, key=lambda path: (len(path.parts), path))


def _libraries(build: Path) -> list[Path]:
    return [path for path in build.rglob("*.so*") if path.suffix == ".so" or ".so." in path.name]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():  # libggml.so to libggml.so.0, beside it
        target.symlink_to(os.readlink(source))
        return
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fchmod(file.fileno(), 0o750)
        os.fsync(file.fileno())
