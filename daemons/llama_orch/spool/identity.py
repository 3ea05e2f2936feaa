"""Names and identities of spool files. No I/O."""

from dataclasses import dataclass

SUFFIX = ".json"


@dataclass(frozen=True)
class Identity:
    """One version of one file. `sha256` is the hex digest of its contents, empty if they were not read."""

    name: str
    inode: int
    mtime_ns: int
    sha256: str

    def same_file(self, inode: int, mtime_ns: int) -> bool:
        """Return whether a file with this inode and modification time is the one that was read."""
        return (self.inode, self.mtime_ns) == (inode, mtime_ns)


def is_document(name: str) -> bool:
    """Return whether a file of this name is for the reader. Names with a leading dot are temporary files of writers."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def printable(name: str) -> str:
    """Return `name` for a message, with control characters and invalid UTF-8 escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
