"""What a stored document is called and known by. Plain values, no I/O."""

from dataclasses import dataclass

SUFFIX = ".json"


@dataclass(frozen=True)
class Identity:
    """One state of one file: `sha256` is that of its contents, in hex, and empty where they were not read."""

    name: str
    inode: int
    mtime_ns: int
    sha256: str

    def same_file(self, inode: int, mtime_ns: int) -> bool:
        """Whether a file with these two is still the one that was looked at."""
        return (self.inode, self.mtime_ns) == (inode, mtime_ns)


def is_document(name: str) -> bool:
    """Whether a file of this name is meant for the reader: temporary names are the writer's own business."""
    return name.endswith(SUFFIX) and not name.startswith(".")


def printable(name: str) -> str:
    """`name` for a log or a message: control characters and bytes that are no UTF-8 are escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
