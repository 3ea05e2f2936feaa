"""Convert plain text to man(7) source: escaped, one sentence per line, with names in bold."""

import re
from collections.abc import Iterable

ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"})
SENTENCES = re.compile(r"(?<=\.) (?=[A-Z])")
PAGE = re.compile(r"(?<![\w.-])([a-z][\w.-]*)(\(\d\))")
NAMES = re.compile(r"(?<![\w/])(?!\w+_PROFILE)[A-Z]+(?:_[A-Z0-9]+)+(?!\w)|(?<!\S)\.?/[\w./-]*[\w/]")


def escaped(text: str) -> str:
    """Escape `text` so that it is shown literally and no line is a request."""
    return re.sub(r"^([.'])", r"\\&\1", text.translate(ESCAPES), flags=re.MULTILINE)


def literal(text: str) -> str:
    """Return `text` in bold, without hyphenation; a list without spaces may be broken after its commas."""
    breakable = text.translate(ESCAPES).replace(",", r",\:")
    return rf"\fB\%{breakable}\fP"


def prose(text: str) -> str:
    """Return `text` with one sentence per line, and with variables, paths and manual pages in bold."""
    return "\n".join(_sentence(sentence) for sentence in SENTENCES.split(" ".join(text.split())))


def _sentence(text: str) -> str:
    marked = PAGE.sub("\0B\\1\0P\\2", NAMES.sub("\0B\0%\\g<0>\0P", text))
    return escaped(marked).replace("\0B", r"\fB").replace("\0%", r"\%").replace("\0P", r"\fP")


def example(lines: Iterable[str]) -> str:
    """Return an indented block of literal lines."""
    shown = "\n".join(map(escaped, lines))
    return f".PP\n.RS 4\n.EX\n{shown}\n.EE\n.RE\n"
