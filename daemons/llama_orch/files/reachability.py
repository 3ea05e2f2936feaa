"""Check whether a user can read a file, and find the directory or file whose permissions prevent it. Blocks.

For this process's own user the kernel decides. For other users the mode bits decide. They are inconclusive if there is
an access control list, or if owner or group have no id in this process's user namespace (PrivateUsers= of the unit);
access is then assumed.
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
"""The id that stands for all ids outside of the user namespace (/proc/sys/kernel/overflowuid)."""


@dataclass(frozen=True)
class UnixUser:
    """A user with the ids that decide about permissions."""

    name: str
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True)
class Obstacle:
    """A directory that a user cannot search, or a file that it cannot read."""

    path: Path
    directory: bool
    user: str
    mode: int

    def __str__(self) -> str:
        permission = "search permission on the directory" if self.directory else "read permission on"
        return f"user {self.user} has no {permission} {self.path} (mode {self.mode:04o})"

    @property
    def command(self) -> str:
        """The command that grants the permission to all users."""
        return f"chmod {'o+x' if self.directory else 'o+r'} {shlex.quote(str(self.path))}"


def current_user() -> UnixUser:
    """Return the user of this process."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return UnixUser(name, uid, frozenset({os.getegid(), *os.getgroups()}))


def find_user(name: str) -> UnixUser | None:
    """Return the user `name` with all its groups, or None if there is no such user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return UnixUser(name, found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid)))


def find_obstacle(path: Path, user: UnixUser) -> Obstacle | None:
    """Return the first obstacle for `user` on the path, or None. None also if the file is missing or the check is
    inconclusive."""
    is_self = user.uid == os.geteuid()
    for each, directory in _components(path):
        try:
            found = os.stat(each)
        except OSError:
            return None  # missing, or behind a directory that this process cannot search
        if is_self:
            allowed = os.access(each, ACCESS[directory])
        else:
            allowed = mode_permits(found, user, directory) or _has_acl(each)
        if not allowed:
            return Obstacle(each, directory, user.name, stat.S_IMODE(found.st_mode))
    return None


def _components(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield each directory from the root to `path`, with links resolved, then the file; True for directories."""
    real = Path(os.path.realpath(path))
    for directory in dict.fromkeys((*reversed(path.parents), *reversed(real.parents))):
        yield directory, True
    yield real, False


def mode_permits(found: os.stat_result, user: UnixUser, directory: bool) -> bool:
    """Whether the mode bits let `user` search a directory or read a file."""
    if user.uid == 0:
        return True
    if found.st_uid == user.uid:
        shifts = [6]
    elif found.st_gid in user.groups:
        shifts = [3]
    else:
        shifts = [0]
    shifts += [6] if found.st_uid == UNMAPPED else []
    shifts += [3] if found.st_gid == UNMAPPED else []
    required = 1 if directory else 4
    return any(found.st_mode >> shift & required for shift in shifts)


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, ACL))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)
