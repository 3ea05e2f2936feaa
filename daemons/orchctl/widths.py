"""The width of text in columns of a terminal, as wcwidth(3) counts it: the only place that knows wide characters."""

from functools import lru_cache
from unicodedata import category, east_asian_width

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
JAMO = range(0x1160, 0x1200)
"""Vowels and final consonants of Hangul, which join the syllable before them."""


@lru_cache(4096)
def character_width(character: str) -> int:
    """Return 2 for wide and full-width characters, 0 for those that join the one before them, otherwise 1.

    Control characters count 1: they are replaced before they reach a terminal.
    """
    if category(character) in ("Mn", "Me", "Cf") or ord(character) in JAMO:
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def width(text: str) -> int:
    return len(text) if text.isascii() else sum(map(character_width, text))


def cut(text: str, columns: int) -> str:
    """Return the longest beginning of `text` that fits."""
    if text.isascii():
        return text[: max(0, columns)]
    left = columns
    for index, character in enumerate(text):
        left -= character_width(character)
        if left < 0:
            return text[:index]
    return text


def truncate(text: str, columns: int) -> str:
    """Return `text`, or what fits of it with an ellipsis; never wider than `columns`, if that is at least 1."""
    return text if width(text) <= columns else cut(text, columns - 1) + ELLIPSIS


def pad(text: str, columns: int) -> str:
    """Fill up with spaces on the right."""
    return text + " " * (columns - width(text))


def wrap(text: str, columns: int) -> list[str]:
    """Return lines of at most `columns` (at least 2), broken at spaces and inside words that are longer."""
    lines, line = list[str](), ""
    for word in text.split():
        rest = word
        if line and width(line) + 1 + width(rest) <= columns:
            line = f"{line} {rest}"
            continue
        if line:
            lines.append(line)
        while width(rest) > columns:
            head = cut(rest, columns)
            lines.append(head)
            rest = rest[len(head) :]
        line = rest
    return [*lines, line] if line else lines
