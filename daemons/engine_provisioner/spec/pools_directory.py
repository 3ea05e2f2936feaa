"""Where pools are configured: the pools file, and drop-in files in the directory beside it."""

import os
from collections.abc import Iterator
from pathlib import Path

from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.pools_file import FileProblem, PoolsFileError, parse_all

LIMIT_BYTES = 1 << 20
"""Of all files together."""
DROP_INS_LIMIT = 256
LOCAL_FILE, SYSTEM_FILE = Path("pools.toml"), Path("/etc/llama-orch/pools.toml")


def path_for(configured: Path | None) -> Path:
    """Return the path of the pools file: as configured, else in the working directory, else the system's."""
    if configured is not None:
        return configured
    return LOCAL_FILE if LOCAL_FILE.exists() or drop_in_directory(LOCAL_FILE).is_dir() else SYSTEM_FILE


def drop_in_directory(path: Path) -> Path:
    """Return the directory of drop-in files of the pools file `path`: `pools.d` for `pools.toml`."""
    return path.with_suffix(".d")


def read(path: Path) -> list[Pool] | None:
    """Return the pools in the file at `path` and its drop-in files, or None if there is no file at all.

    Blocks; raises PoolsFileError.
    """
    files = read_files(path)
    return parse_all(files) if files else None


def read_files(path: Path) -> list[tuple[Path, bytes]]:
    """Return path and content of each file in the order in which they apply. Blocks; raises PoolsFileError."""
    files: list[tuple[Path, bytes]] = []
    size = 0
    for each in (path, *_drop_ins(drop_in_directory(path))):
        content = _read(each)
        if content is None:
            continue
        size += len(content)
        if size > LIMIT_BYTES:
            others = ", together with the files before it" if files else ""
            raise PoolsFileError([FileProblem(each, None, "", f"is larger than {LIMIT_BYTES} bytes{others}")])
        files.append((each, content))
    return files


def _drop_ins(directory: Path) -> list[Path]:
    """Return the drop-in files by name. Files that a program is still writing have hidden names."""
    try:
        found = sorted(_named(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(directory, error, "directory") from error
    if len(found) > DROP_INS_LIMIT:
        problem = f"has {len(found)} files; at most {DROP_INS_LIMIT} are allowed"
        raise PoolsFileError([FileProblem(directory, None, "", problem)])
    return found


def _named(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.suffix == ".toml" and not path.name.startswith("."):
            yield path


def _read(path: Path) -> bytes | None:
    """Return the content, cut after LIMIT_BYTES and one more, or None if there is no such file."""
    try:
        with open(path, "rb", opener=_open) as file:
            return file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error, "file") from error


def _open(path: str, flags: int) -> int:
    """Open without waiting for the writer of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _unreadable(path: Path, error: OSError, kind: str) -> PoolsFileError:
    problem = f"cannot be read ({error.strerror}); it must be a {kind} that engine-provisioner can read"
    return PoolsFileError([FileProblem(path, None, "", problem)])
