"""The conditions of a download, and the interface for its progress."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine_provisioner.fetch.bandwidth import Bandwidth


async def no_progress(_done: int, _total: int | None) -> None:
    """Ignore progress."""


async def no_room(_size: int, _directory: Path, _present: int) -> None:
    """Make no room."""


@dataclass(frozen=True)
class Terms:
    """How to download.

    - `on_progress`: called with the bytes on disk and the total if it is known; first with what was there before
    - `expect`: called with the seconds within which the next step must end, and its name
    - `make_room`: called before the first byte with the size of the file, where it goes, and how many of its bytes an
      earlier attempt has left there
    """

    bandwidth: Bandwidth = field(default_factory=Bandwidth)
    on_progress: Callable[[int, int | None], Awaitable[None]] = no_progress
    expect: Callable[[float, str], None] = lambda _within_s, _step: None
    make_room: Callable[[int, Path, int], Awaitable[None]] = no_room
