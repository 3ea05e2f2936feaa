"""The SHA-256 digest of a local file, with progress on the terminal."""

import hashlib
from pathlib import Path

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.output import StatusLine

CHUNK_BYTES = 4 << 20


def file_digest(name: str) -> str:
    """Return `sha256:` and the hex digest of a file. Raises CommandError if it cannot be read.

    It blocks instead of using a thread: nothing else runs in this process, and Ctrl-C takes effect between chunks.
    """
    line = StatusLine()
    try:
        if not Path(name).is_file():
            raise CommandError(f"{name} is not a regular file", "", ExitStatus.NO_INPUT)
        return f"sha256:{_hash(Path(name), line)}"
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}", "", ExitStatus.NO_INPUT) from error
    finally:
        line.clear()


def _hash(path: Path, line: StatusLine) -> str:
    digest, size, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            line.show(f"{path.name}: {100 * done // max(size, done)} %")
    return digest.hexdigest()
