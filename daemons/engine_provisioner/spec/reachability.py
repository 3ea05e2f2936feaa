"""Whether a user can read a file: which directory on the way to it, or the file itself, keeps them out. Blocks.

The kernel is asked on behalf of this process. For another user the mode bits are judged. They do not tell where an
access control list is present, nor where owner or group have no id in this process's user namespace (PrivateUsers= of
the unit); the user is then taken to be permitted.
"""

import errno
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ACL = "system.posix_acl_access"
ACCESS = {True: os.X_OK, False: os.R_OK}
UNMAPPED = 65534
"""What ids outside of the user namespace are shown as (/proc/sys/kernel/overflowuid)."""


@dataclass(frozen=True)
class Reader:
    """A user by the ids that permissions are judged by."""

    name: str
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True)
class Obstacle:
    """What keeps a user from reading a file: a directory that it may not enter, or the file."""

    path: Path
    directory: bool
    user: str
    mode: int

    def __str__(self) -> str:
        what = f"the directory {self.path} may not be entered" if self.directory else f"{self.path} may not be read"
        return f"{what} by the user {self.user} (mode {self.mode:04o})"

    @property
    def command(self) -> str:
        """The command that lets everybody through."""
        return f"chmod {'o+x' if self.directory else 'o+r'} {shlex.quote(str(self.path))}"


def myself() -> Reader:
    """The user of this process."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Reader(name, uid, frozenset({os.getegid(), *os.getgroups()}))


def user(name: str) -> Reader | None:
    """The user `name` with all groups, or None where there is no such user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return Reader(name, found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid)))


def obstacle(path: Path, reader: Reader) -> Obstacle | None:
    """The first thing on the way to `path` that keeps `reader` from reading it. None also where something on the way is
    missing, or where that cannot be told."""
    own = reader.uid == os.geteuid()
    for each, directory in _way(path):
        try:
            found = os.stat(each)
        except OSError:
            return None  # missing, or behind a directory that this process may not enter, which was judged before
        allowed = os.access(each, ACCESS[directory]) if own else permits(found, reader, directory) or _has_acl(each)
        if not allowed:
            return Obstacle(each, directory, reader.name, stat.S_IMODE(found.st_mode))
    return None


def _way(path: Path) -> Iterator[tuple[Path, bool]]:
    """Each directory from the root to `path`, links followed, then the file; whether it is a directory."""
    real = Path(os.path.realpath(path))
    for directory in dict.fromkeys((*reversed(path.parents), *reversed(real.parents))):
        yield directory, True
    yield real, False


def permits(found: os.stat_result, reader: Reader, directory: bool) -> bool:
    """Whether the mode bits let `reader` enter a directory or read a file."""
    if reader.uid == 0:
        return True
    if found.st_uid == reader.uid:
        shifts = [6]
    elif found.st_gid in reader.groups:
        shifts = [3]
    else:
        shifts = [0]
    shifts += [6] if found.st_uid == UNMAPPED else []
    shifts += [3] if found.st_gid == UNMAPPED else []
    wanted = 1 if directory else 4
    return any(found.st_mode >> shift & wanted for shift in shifts)


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, ACL))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)
