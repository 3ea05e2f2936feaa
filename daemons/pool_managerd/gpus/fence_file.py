"""gpu-fences.json in the runtime directory: fences survive a restart of the daemon, but not of the machine."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llama_orch.contracts.base import Outbound
from llama_orch.files import durable
from llama_orch.spool.handoffs import decode
from pool_managerd.gpus.fencing import Cleared, Fence, Fencing

FILE = "gpu-fences.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SIZE_LIMIT = 1 << 20
ENTRIES_MAX = 256

Text = Annotated[str, StringConstraints(max_length=1024)]


class SavedFence(Outbound):
    """One fence; see `Fence`."""

    uuid: Text
    device: Text
    codes: Annotated[tuple[int, ...], Field(min_length=1, max_length=16)]
    since_s: float
    reason: Text
    action: Text
    energy_j: float | None = None
    missing: bool = False
    recovery: Text | None = None


class SavedEnd(Outbound):
    """The last end of a fence; see `Cleared`."""

    at_s: float
    recovery: Text | None = None


class SavedFences(Outbound):
    """gpu-fences.json. `read_until_s` is the Unix time up to which the kernel log was taken into account."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    boot_id: Text
    fences: Annotated[list[SavedFence], Field(max_length=ENTRIES_MAX)] = []
    cleared: Annotated[dict[Text, SavedEnd], Field(max_length=ENTRIES_MAX)] = {}
    read_until_s: float = 0.0


class FenceFile:
    """gpu-fences.json in `directory`. Its methods block."""

    def __init__(self, directory: Path, boot_id: Path = BOOT_ID) -> None:
        self.path = directory / FILE
        self._boot_id = boot_id

    def load(self) -> tuple[Fencing, float | None]:
        """Return what was saved since the machine was booted, and up to which time; None if there is nothing.

        Raises OSError and ValueError for an unusable file.
        """
        try:
            content = self.path.read_bytes()[:SIZE_LIMIT]
        except FileNotFoundError:
            return Fencing(), None
        saved = decode(content, SavedFences)
        if saved.boot_id != self._boot():
            return Fencing(), None
        fences = {each.uuid: Fence(**{**each.model_dump(), "codes": each.codes}) for each in saved.fences}
        cleared = {uuid: Cleared(end.at_s, end.recovery) for uuid, end in saved.cleared.items()}
        return Fencing(fences, cleared), saved.read_until_s

    def save(self, state: Fencing, read_until_s: float) -> None:
        """Replace the file. Raises OSError."""
        saved = SavedFences(
            boot_id=self._boot(),
            fences=[SavedFence(**vars(fence)) for fence in state.fences.values()][-ENTRIES_MAX:],
            cleared={uuid: SavedEnd(**vars(end)) for uuid, end in [*state.cleared.items()][-ENTRIES_MAX:]},
            read_until_s=read_until_s,
        )
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        durable.replace(self.path, saved.model_dump_json(by_alias=True, exclude_none=True).encode())

    def _boot(self) -> str:
        try:
            return self._boot_id.read_text("ascii").strip()
        except OSError:
            return "unknown"
