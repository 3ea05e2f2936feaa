"""Parser for manual pages: sections, tagged paragraphs and examples as plain text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ESCAPES = {
    r"\-": "-",
    r"\(aq": "'",
    r"\(ga": "`",
    r"\(ha": "^",
    r"\(ti": "~",
    r"\(dq": '"',
    r"\&": "",
    r"\%": "",
    r"\:": "",
    r"\e": "\\",
}
ESCAPE = re.compile(r"\\f[BIRP]|" + "|".join(map(re.escape, ESCAPES)))


@dataclass(frozen=True)
class Entry:
    """A tagged paragraph: the bold words of its tag, and its text."""

    section: str
    names: tuple[str, ...]
    text: str


def plain(source: str) -> str:
    """Remove fonts and escapes from roff source."""
    return ESCAPE.sub(lambda found: ESCAPES.get(found[0], ""), source)


class Page:
    """A manual page in the format of man(7)."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_text().splitlines()

    def entries(self, *sections: str) -> list[Entry]:
        """Return the tagged paragraphs in these sections and subsections, or in all if none is given."""
        return [entry for entry in self._entries() if not sections or entry.section in sections]

    def names(self, *sections: str) -> list[str]:
        """Return the bold words in the tags of these sections, in order."""
        return [name for entry in self.entries(*sections) for name in entry.names]

    def examples(self) -> list[str]:
        """Return the examples, which are between .EX and .EE."""
        blocks = re.findall(r"^\.EX\n(.*?)^\.EE$", "\n".join(self.lines), re.DOTALL | re.MULTILINE)
        return [plain(block) for block in blocks]

    @property
    def text(self) -> str:
        """The text of the page in one line, without requests."""
        lines = (line for line in self.lines if not line.startswith("."))
        return " ".join(plain(" ".join(lines)).split())

    def _entries(self) -> Iterator[Entry]:
        section = ""
        for index, line in enumerate(self.lines):
            if line.startswith((".SH ", ".SS ")):
                section = plain(line[4:])
            elif line == ".TP":
                tag = self.lines[index + 1]
                yield Entry(section, tuple(map(plain, re.findall(r"\\fB(.*?)\\fP", tag))), self._body(index + 2))

    def _body(self, start: int) -> str:
        lines = []
        for line in self.lines[start:]:
            if line.startswith((".TP", ".SH", ".SS", ".PP")):
                break
            if not line.startswith("."):
                lines.append(line)
        return " ".join(plain(" ".join(lines)).split())
