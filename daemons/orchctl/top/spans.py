"""Text with a style, and lines of it: what a frame is made of before it becomes escape sequences."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchctl.output import CONTROL_CHARACTERS
from orchctl.widths import cut, pad, truncate, width


class Style(StrEnum):
    """The parameters of SGR, the escape sequence for attributes of text."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    REVERSE = "7"
    GOOD = "32"
    WARNING = "33"
    BAD = "31"


PLAIN, BOLD, DIM, REVERSE = Style.PLAIN, Style.BOLD, Style.DIM, Style.REVERSE
GOOD, WARNING, BAD = Style.GOOD, Style.WARNING, Style.BAD
COLOURS = (GOOD, WARNING, BAD)


@dataclass(frozen=True)
class Span:
    text: str
    style: Style = PLAIN

    def fitted(self, columns: int) -> "Span":
        """Return the text cut or filled to exactly `columns`, at least 1."""
        return Span(pad(truncate(printable(self.text), columns), columns), self.style)


Line = Sequence[Span]


def printable(text: str) -> str:
    """Replace what controls a terminal, line ends and tabs included."""
    return text if text.isprintable() else text.replace("\n", " ").replace("\t", " ").translate(CONTROL_CHARACTERS)


def line_width(line: Line) -> int:
    return sum(width(span.text) for span in line)


def cut_line(line: Line, columns: int) -> Line:
    """Return what fits of a line."""
    kept, left = list[Span](), columns
    for span in line:
        text = cut(printable(span.text), left)
        kept.append(Span(text, span.style))
        left -= width(text)
    return kept


def plain_text(line: Line) -> str:
    return "".join(span.text for span in line).rstrip()


def colours_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a terminal may get colours (https://no-color.org). Bold and reverse are no colours."""
    return not environ.get("NO_COLOR")


def escape(line: Line, *, colours: bool) -> str:
    """Return the line with escape sequences."""
    return "".join(
        f"\x1b[{span.style}m{span.text}\x1b[m"
        if span.style and span.text and (colours or span.style not in COLOURS)
        else span.text
        for span in line
    )
