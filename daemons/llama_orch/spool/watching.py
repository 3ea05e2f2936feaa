"""Notify of changes in a directory: inotify on trio, with polling as the fallback.

Owns one inotify descriptor per `watch`. The directory may be missing, be replaced or reappear. Without inotify the
reader relies on its own polling interval.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio
from inotify_simple import Event, INotify, flags

from llama_orch.spool.identity import is_document

log = logging.getLogger(__name__)

CHANGES = flags.MOVED_TO | flags.CLOSE_WRITE | flags.CREATE | flags.DELETE
LOST = flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT
WATCH_MASK = CHANGES | flags.DELETE_SELF | flags.MOVE_SELF | flags.ONLYDIR | flags.DONT_FOLLOW


async def watch(
    directory: Path,
    ring: Callable[[], None],
    *,
    interval_s: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `ring` whenever a document in `directory` appears, changes or disappears. Never returns if inotify works.

    Checks every `interval_s` seconds that the path still names the watched directory; a new directory also calls
    `ring`. Reports started after the first attempt to watch the directory.
    """
    try:
        inotify = INotify(nonblocking=True)
    except OSError as error:
        log.warning("cannot watch %s: %s; polling every %g s instead", directory, error.strerror, interval_s)
        task_status.started()
        return
    with inotify:
        follower = _Follower(directory, inotify)
        follower.attach()
        task_status.started()
        while True:
            with trio.move_on_after(interval_s):
                await trio.lowlevel.wait_readable(inotify.fileno())
            if follower.drain() | follower.attach():
                ring()


class _Follower:
    """Keeps one inotify watch on the directory that `path` currently names."""

    def __init__(self, path: Path, inotify: INotify) -> None:
        self._path = path
        self._inotify = inotify
        self._watch: int | None = None
        self._inode: tuple[int, int] | None = None

    def drain(self) -> bool:
        """Read all pending events; return whether one of them matters."""
        events: list[Event] = list(self._inotify.read(timeout=0))
        if any(event.wd == self._watch and event.mask & LOST for event in events):
            self._detach()
        return any(matters(event.mask, event.name) for event in events)

    def attach(self) -> bool:
        """Watch the directory if it is not yet watched; return whether it is a new one, which may contain documents."""
        try:
            status = os.stat(self._path, follow_symlinks=False)
            if self._inode == (status.st_dev, status.st_ino):
                return False
            self._detach()
            self._watch = self._inotify.add_watch(self._path, WATCH_MASK)
            self._inode = (status.st_dev, status.st_ino)
        except OSError:
            self._detach()
            return False
        return True

    def _detach(self) -> None:
        watch, self._watch, self._inode = self._watch, None, None
        try:
            if watch is not None:
                self._inotify.rm_watch(watch)
        except OSError:
            pass  # the kernel has removed it together with its directory


def matters(mask: int, name: str) -> bool:
    """Return whether an event concerns a document, or lost events may have."""
    if mask & flags.Q_OVERFLOW:
        return True
    return bool(mask & CHANGES) and not mask & flags.ISDIR and is_document(name)
