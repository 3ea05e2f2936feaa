"""Unpack a downloaded engine. An untrusted archive must not write outside its directory or fill the disk."""

import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

SIZE_LIMIT = 16 << 30
MEMBER_LIMIT = 100_000
EXECUTABLE = "llama-server"
TAR_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
SUPPORTED = ".tar.gz, .tar.xz, .tar.bz2, .tar, .zip"
UNSUPPORTED = {b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf\x27\x1c": "7-Zip"}


class BadArchive(Exception):
    """The archive cannot be used; the message follows its name."""


def unpack(source: Path, target: Path) -> None:
    """Unpack the archive `source` into the new directory `target`, or copy it there if it is an executable.

    The type is detected from the content. Blocks; raises BadArchive and OSError.
    """
    with source.open("rb") as file:
        head = file.read(512)
    if kind := next((name for magic, name in UNSUPPORTED.items() if head.startswith(magic)), None):
        raise BadArchive(f"is a {kind} archive; supported: {SUPPORTED}")
    target.mkdir(mode=0o750, parents=True)
    try:
        if head.startswith(b"PK\x03\x04"):
            _unzip(source, target)
        elif head[257:262] == b"ustar" or any(head.startswith(magic) for magic in TAR_MAGIC):
            _untar(source, target)
        elif head.startswith((b"\x7fELF", b"#!")):
            shutil.copyfile(source, target / EXECUTABLE)
            (target / EXECUTABLE).chmod(0o750)
        else:
            raise BadArchive(f"is neither a supported archive ({SUPPORTED}) nor an executable")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise BadArchive(f"cannot be unpacked: {error}") from error
    _let_group_read(target)


def find_executable(tree: Path) -> Path:
    """Return the llama-server nearest to the top of an unpacked tree. Raises BadArchive."""
    found = [path for path in tree.rglob(EXECUTABLE) if path.is_file() and os.access(path, os.X_OK)]
    if not found:
        raise BadArchive(f"contains no executable named {EXECUTABLE}")
    return min(found, key=lambda path: (len(path.parts), path))


def leaves_directory(name: str) -> bool:
    """Whether a member with this name would be written outside the target directory."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or not path.parts


def _untar(source: Path, target: Path) -> None:
    total = 0
    with tarfile.open(source) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", _unfiltered)
        for count, member in enumerate(archive):
            total += member.size
            _check_bounds(count, total)
            if member.name.rstrip("/") in ("", "."):
                continue
            _check_member(member, target)
            archive.extract(member, target, set_attrs=True, numeric_owner=True)


def _unfiltered(member: tarfile.TarInfo, _path: str) -> tarfile.TarInfo:
    return member


def _check_member(member: tarfile.TarInfo, target: Path) -> None:
    """Reject what the data filter of `tarfile` rejects; the Python of Debian 12 has no such filter."""
    if leaves_directory(member.name):
        raise BadArchive(f"has a member outside its directory: {member.name!r}")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise BadArchive(f"has a member that is not a file, directory or link: {member.name!r}")
    base = os.path.realpath(target)
    anchor = os.path.dirname(os.path.join(base, member.name)) if member.issym() else base
    for path in (
        os.path.join(base, member.name),
        *([os.path.join(anchor, member.linkname)] if member.linkname else []),
    ):
        if os.path.commonpath([os.path.realpath(path), base]) != base:
            raise BadArchive(f"has a link to outside its directory: {member.name!r}")
    member.mode = 0o750 if member.isdir() or member.mode & 0o100 else 0o640
    member.uid, member.gid = os.getuid(), os.getgid()
    member.uname = member.gname = ""


def _unzip(source: Path, target: Path) -> None:
    total = 0
    with zipfile.ZipFile(source) as archive:
        for count, member in enumerate(archive.infolist()):
            total += member.file_size
            _check_bounds(count, total)
            mode = member.external_attr >> 16
            if leaves_directory(member.filename) or stat.S_ISLNK(mode):
                raise BadArchive(f"has a member that is a link or outside its directory: {member.filename!r}")
            path = Path(archive.extract(member, target))
            if not member.is_dir():
                path.chmod(0o750 if mode & 0o100 or path.name == EXECUTABLE else 0o640)


def _check_bounds(count: int, total: int) -> None:
    if count >= MEMBER_LIMIT or total > SIZE_LIMIT:
        raise BadArchive(f"is too large (at most {SIZE_LIMIT >> 30} GiB in {MEMBER_LIMIT} files are allowed)")


def _let_group_read(tree: Path) -> None:
    """Make directories accessible for the group, whatever the umask: it includes the user that runs engines."""
    for directory, _names, _files in os.walk(tree):
        os.chmod(directory, 0o750)  # noqa: S103 -- others have no access
