"""What the files of models say, read once for each file and kept in memory."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from engine_provisioner import checksums
from engine_provisioner.gguf.header import GgufHeader
from engine_provisioner.gguf.reader import GgufError, read_header

KEPT = 1000


@dataclass(frozen=True)
class ModelSummary:
    """The header of a model's file, or why it cannot be read."""

    header: GgufHeader | None = None
    problem: str | None = None


class ModelHeaders:
    """The summaries of the files that were asked for last. Not thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Path, tuple[int, ...]], ModelSummary] = OrderedDict()

    def summary(self, path: Path) -> ModelSummary:
        """Return the summary of the file at `path`, read again if the file has changed. Blocks; raises nothing."""
        try:
            key = path, tuple(checksums.signature(path))
        except OSError as error:
            return ModelSummary(problem=f"cannot be read: {error.strerror or error}")
        if key not in self._known:
            self._known[key] = _read(path)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return self._known[key]


def _read(path: Path) -> ModelSummary:
    try:
        header = read_header(path)
    except GgufError as error:
        return ModelSummary(problem=str(error))
    except OSError as error:
        return ModelSummary(problem=f"cannot be read: {error.strerror or error}")
    if header.truncated_by:
        return ModelSummary(header, f"it is truncated: {header.truncated_by} bytes are missing at its end")
    return ModelSummary(header)
