"""Plain words as the source of a manual page, man(7): escaped, a sentence a line, and names in bold."""

import re
from collections.abc import Iterable

ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"})
SENTENCES = re.compile(r"(?<=\.) (?=[A-Z])")
PAGE = re.compile(r"(?<![\w.-])([a-z][\w.-]*)(\(\d\))")
NAMES = re.compile(r"(?<![\w/])(?!\w+_PROFILE)[A-Z]+(?:_[A-Z0-9]+)+(?!\w)|(?<!\S)\.?/[\w./-]*[\w/]")


def escaped(text: str) -> str:
    """`text` so that it is shown as it is, and no line of it is a request."""
    return re.sub(r"^([.'])", r"\\&\1", text.translate(ESCAPES), flags=re.MULTILINE)


def literal(text: str) -> str:
    """`text` in bold and never hyphenated: what is written just so."""
    return rf"\fB\%{text.translate(ESCAPES)}\fP"


def prose(text: str) -> str:
    """Sentences, each on its own line; variables, paths and other pages are in bold."""
    return "\n".join(_sentence(sentence) for sentence in SENTENCES.split(" ".join(text.split())))


def _sentence(text: str) -> str:
    marked = PAGE.sub("\0B\\1\0P\\2", NAMES.sub("\0B\0%\\g<0>\0P", text))
    return escaped(marked).replace("\0B", r"\fB").replace("\0%", r"\%").replace("\0P", r"\fP")


def example(lines: Iterable[str]) -> str:
    """Lines that are shown as they are, indented."""
    shown = "\n".join(map(escaped, lines))
    return f".PP\n.RS 4\n.EX\n{shown}\n.EE\n.RE\n"
