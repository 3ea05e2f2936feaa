"""Reading a manual page's source: its sections, its tagged paragraphs and its examples, as plain text."""

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
    r"\e": "\\",
}
ESCAPE = re.compile(r"\\f[BIRP]|" + "|".join(map(re.escape, ESCAPES)))


@dataclass(frozen=True)
class Entry:
    """A tagged paragraph: the words of its tag that are set in bold, and the text below it."""

    section: str
    names: tuple[str, ...]
    text: str


def plain(source: str) -> str:
    """Roff without fonts and escapes."""
    return ESCAPE.sub(lambda found: ESCAPES.get(found[0], ""), source)


class Page:
    """One page of the manual, man(7)."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_text().splitlines()

    def entries(self, *sections: str) -> list[Entry]:
        """The tagged paragraphs in these sections and subsections; in all where none is named."""
        return [entry for entry in self._entries() if not sections or entry.section in sections]

    def names(self, *sections: str) -> list[str]:
        """What is in bold in the tags of these sections, in order."""
        return [name for entry in self.entries(*sections) for name in entry.names]

    def examples(self) -> list[str]:
        """What stands between .EX and .EE."""
        blocks = re.findall(r"^\.EX\n(.*?)^\.EE$", "\n".join(self.lines), re.DOTALL | re.MULTILINE)
        return [plain(block) for block in blocks]

    @property
    def text(self) -> str:
        """All of it in one line, without requests."""
        kept = (line for line in self.lines if not line.startswith("."))
        return " ".join(plain(" ".join(kept)).split())

    def _entries(self) -> Iterator[Entry]:
        section = ""
        for index, line in enumerate(self.lines):
            if line.startswith((".SH ", ".SS ")):
                section = plain(line[4:])
            elif line == ".TP":
                tag = self.lines[index + 1]
                yield Entry(section, tuple(map(plain, re.findall(r"\\fB(.*?)\\fP", tag))), self._body(index + 2))

    def _body(self, start: int) -> str:
        taken = []
        for line in self.lines[start:]:
            if line.startswith((".TP", ".SH", ".SS", ".PP")):
                break
            if not line.startswith("."):
                taken.append(line)
        return " ".join(plain(" ".join(taken)).split())
