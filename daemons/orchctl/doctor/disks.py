"""Disk space of the directories that the daemons write to."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import trio

from orchctl.check.findings import Finding, ok, problem, warning
from orchctl.doctor.site import Site
from orchctl.tables import size

CACHE_VARIABLE, CACHE = "ENGINE_PROVISIONER_CACHE_DIR", "/var/cache/llama-orch"
STATE = {"queen-rbee": "/var/lib/queen-rbee", "pool-managerd": "/var/lib/pool-managerd"}
MIB, GIB = 1 << 20, 1 << 30
LEAST = {True: (GIB, 20 * GIB), False: (100 * MIB, GIB)}
"""Free bytes below which a directory is a problem, and a warning: for the cache of models, and for state."""


@dataclass(frozen=True)
class Disk:
    """The file system of a directory; sizes are in bytes. `cache`: it holds models and engines."""

    path: str
    free: int
    total: int
    free_files: int | None = None
    read_only: bool = False
    cache: bool = False


async def observe_disks(site: Site) -> Sequence[Disk]:
    return await trio.to_thread.run_sync(_disks, site, abandon_on_cancel=True)


def _disks(site: Site) -> list[Disk]:
    directories = [(path, False) for daemon, path in STATE.items() if site.installed(daemon)]
    if site.installed("engine-provisioner"):
        cache = site.variables.get("engine-provisioner", {}).get(CACHE_VARIABLE, CACHE)
        directories.insert(0, (cache, True))
    return [disk for path, cache in directories if (disk := _disk(path, cache=cache))]


def _disk(path: str, *, cache: bool) -> Disk | None:
    """Return the file system of `path`, or of the nearest directory above it that this user can look at."""
    place = path
    while True:
        try:
            found = os.statvfs(place)
        except OSError:
            if place in ("/", "") or not place.startswith("/"):
                return None
            place = os.path.dirname(place)
            continue
        files = found.f_favail if found.f_files else None  # some file systems do not count files
        read_only = bool(found.f_flag & os.ST_RDONLY)
        return Disk(path, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, files, read_only, cache)


def disk_findings(disks: Sequence[Disk]) -> Iterator[Finding]:
    for disk in disks:
        few, low = LEAST[disk.cache]
        text = f"{disk.path}: {size(disk.free)} of {size(disk.total)} free"
        if disk.read_only:
            yield problem("disk", f"{disk.path} is mounted read-only", f"findmnt -T {disk.path}; journalctl -k -b")
        elif disk.free_files is not None and disk.free_files < 1000:
            text = f"{disk.path}: {disk.free_files} more files can be created"
            yield problem("disk", text, f"df -i {disk.path} shows the file system.")
        elif disk.free < few:
            yield problem("disk", text, _mend(disk))
        elif disk.free < min(low, disk.total // 10):
            yield warning("disk", text, _mend(disk))
        else:
            yield ok("disk", text)


def _mend(disk: Disk) -> str:
    if disk.cache:
        return "orchctl models --disk shows the models, orchctl rm REF removes one."
    return f"du -xh --max-depth=1 {os.path.dirname(disk.path)} | sort -h shows what takes the space."
