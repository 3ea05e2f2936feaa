"""Text for people: columns, one thing whole, and how a time, a count or a place in the queue reads."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from textwrap import wrap

from pydantic import BaseModel, JsonValue

from orchctl.output import terminal_columns

NOTHING = "-"
NARROW = 8
"""No column is made narrower than this, or than its title."""


def table(rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """A header and rows, in columns two blanks apart: as wide as their widest cell, or to fit a terminal's `columns`.

    What is too wide is cut, but in the first column, whose names are asked for; where that does not help, each row
    becomes a block of lines. By default the terminal is standard output; a pipe or a file has any width.
    """
    limit = columns or terminal_columns()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if limit and _width(widths) > limit:
        narrowed = _narrowed(widths, [len(title) for title in rows[0]], limit)
        if narrowed is None:
            return "\n\n".join(_block(rows[0], row, limit) for row in rows[1:])
        widths = narrowed
    return _aligned(rows, widths)


def _aligned(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    lines = ("  ".join(cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _narrowed(widths: Sequence[int], titles: Sequence[int], limit: int) -> list[int] | None:
    """`widths` with the widest columns made narrower until all fit into `limit`; None where they cannot."""
    least = [widths[0], *(min(width, max(title, NARROW)) for width, title in zip(widths[1:], titles[1:], strict=True))]
    if _width(least) > limit:
        return None
    narrowed = [min(width, limit) for width in widths]
    while _width(narrowed) > limit:
        spare = [have - need for have, need in zip(narrowed, least, strict=True)]
        widest = max((index for index, left in enumerate(spare) if left), key=lambda index: narrowed[index])
        narrowed[widest] -= 1
    return narrowed


def _block(titles: Sequence[str], row: Sequence[str], limit: int) -> str:
    """One row below itself, a line for each title; long values go on in further lines."""
    margin = min(max(map(len, titles)) + 2, limit // 2)
    lines = []
    for title, value in zip(titles, row, strict=True):
        first, *others = wrap(value, limit - margin, break_on_hyphens=False) or [""]
        lines += [cut(title, margin - 1).ljust(margin) + first, *(" " * margin + other for other in others)]
    return "\n".join(line.rstrip() for line in lines)


def cut(text: str, width: int) -> str:
    """`text`, or as much of it as `width` has room for, with an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "\N{HORIZONTAL ELLIPSIS}"


def whole(found: BaseModel, without: str = "") -> str:
    """Everything that is known of one thing but the field `without`: a line for each name and value."""
    document = found.model_dump(mode="json", exclude_none=True, exclude={without})
    leaves = [*_leaves("", document)]
    return _aligned(leaves, [max(len(leaf[part]) for leaf in leaves) for part in (0, 1)])


def _leaves(name: str, value: JsonValue) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{name}.{key}".removeprefix("."), below)
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for index, part in enumerate(value):
            yield from _leaves(f"{name}.{index}", part)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or NOTHING
    else:
        yield name, one_line(yes(value) if isinstance(value, bool) else str(value))


def one_line(text: str | None) -> str:
    """`text` without its line breaks; a dash for none."""
    return " ".join((text or "").split()) or NOTHING


def cell(value: object) -> str:
    """A number as it is; a dash for what is not known."""
    return NOTHING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def yes(value: bool) -> str:
    """A truth."""
    return "yes" if value else "no"


def ms(value: float | None) -> str:
    """Milliseconds, whole ones."""
    return NOTHING if value is None else str(round(value))


def gib(size: int) -> str:
    """Bytes as GiB, which is how the memory of GPUs is told."""
    return f"{size / 2**30:.1f}"


def age(since: datetime, now: datetime | None = None) -> str:
    """How long ago `since` was; 0 s where the queen's clock is ahead of ours."""
    return duration(((now or datetime.now(UTC)) - since).total_seconds())


def duration(seconds: float) -> str:
    """About how long: the largest unit of which there are at least two."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else last}"


def place(position: int, predicted_start_ms: int | None) -> str:
    """Where a task stands that has `position` others before it, and how long it will probably wait; None: no pool that
    could serve it is ready."""
    if predicted_start_ms is None:
        return f"{ordinal(position + 1)} in the queue, no pool for it is ready"
    return f"{ordinal(position + 1)} in the queue, about {duration(max(1, predicted_start_ms / 1000))}"
