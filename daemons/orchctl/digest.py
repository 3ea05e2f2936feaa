"""SHA-256 of a local file, with a word to the person who waits for it."""

import hashlib
from pathlib import Path

from llama_orch.service.exit import ExitStatus
from orchctl.failure import Failure
from orchctl.output import Line

CHUNK = 4 << 20


def digest_of(name: str) -> str:
    """`sha256:` and the digest of the file. Raises Failure where it cannot be read.

    In no thread: nothing else waits for this process, and Ctrl-C gets through between two chunks.
    """
    line = Line()
    try:
        if not Path(name).is_file():
            raise Failure(f"{name} is no file", "", ExitStatus.NO_INPUT)
        return f"sha256:{_hashed(Path(name), line)}"
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}", "", ExitStatus.NO_INPUT) from error
    finally:
        line.clear()


def _hashed(path: Path, line: Line) -> str:
    digest, size, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            line.show(f"{path.name}: {100 * done // max(size, done)} %")
    return digest.hexdigest()
