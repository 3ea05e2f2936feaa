"""Replace files atomically and durably: a reader sees the old or the new file, also after a power cut."""

import os
import secrets
from pathlib import Path

GROUP_READABLE = 0o640


def replace(
    path: Path, content: bytes, mode: int = GROUP_READABLE, group: int | None = None, owner: int | None = None
) -> None:
    """Write `content` to a temporary file next to `path`, fsync it, rename it to `path`. Blocks; raises OSError.

    The file has the group with the id `group`; without one, that of this process or of a setgid directory. It belongs
    to the user with the id `owner`; without one, to this process. The temporary name begins with a dot and does not end
    in .json, so readers of the directory ignore it.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            if group is not None or owner is not None:
                os.fchown(file.fileno(), -1 if owner is None else owner, -1 if group is None else group)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` durable. Blocks; raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
