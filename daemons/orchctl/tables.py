"""Text formatting: tables that fit the terminal, records, and the notation of times, sizes and queue positions."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, JsonValue

from orchctl.output import terminal_columns
from orchctl.widths import pad, truncate, width, wrap

UNKNOWN = "-"
MIN_COLUMN_WIDTH = 8
"""No column is made narrower than this or its title."""


def format_table(rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """Format a header and rows in columns separated by two spaces, at most `columns` wide.

    By default the limit is the width of the terminal; a pipe or file has none. To fit, the widest columns are cut, but
    never the first, which names what the row is about. If that does not suffice, each row becomes a block of lines.
    """
    limit = columns or terminal_columns()
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    if limit and _total_width(widths) > limit:
        narrowed = _narrow(widths, [width(title) for title in rows[0]], limit)
        if narrowed is None:
            return "\n\n".join(_format_block(rows[0], row, limit) for row in rows[1:])
        widths = narrowed
    return _align(rows, widths)


def _align(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    lines = (
        "  ".join(pad(truncate(cell, columns), columns) for cell, columns in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _total_width(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _narrow(widths: Sequence[int], titles: Sequence[int], limit: int) -> list[int] | None:
    """Shrink the widest columns until the total fits `limit`; None if it cannot."""
    minimum = [
        widths[0],
        *(min(needed, max(title, MIN_COLUMN_WIDTH)) for needed, title in zip(widths[1:], titles[1:], strict=True)),
    ]
    if _total_width(minimum) > limit:
        return None
    narrowed = [min(needed, limit) for needed in widths]
    while _total_width(narrowed) > limit:
        spare = [now - least for now, least in zip(narrowed, minimum, strict=True)]
        widest = max((index for index, left in enumerate(spare) if left), key=lambda index: narrowed[index])
        narrowed[widest] -= 1
    return narrowed


def _format_block(titles: Sequence[str], row: Sequence[str], limit: int) -> str:
    """Format a row as one line for each title, with long values wrapped."""
    margin = min(max(map(width, titles)) + 2, limit // 2)
    lines = []
    for title, value in zip(titles, row, strict=True):
        first, *others = wrap(value, limit - margin) or [""]
        lines += [pad(truncate(title, margin - 1), margin) + first, *(" " * margin + other for other in others)]
    return "\n".join(line.rstrip() for line in lines)


def format_record(record: BaseModel, exclude: str = "") -> str:
    """Format every field that is not None, except `exclude`, as a line of dotted name and value."""
    document = record.model_dump(mode="json", exclude_none=True, exclude={exclude})
    leaves = [*_leaves("", document)]
    return _align(leaves, [max(width(leaf[part]) for leaf in leaves) for part in (0, 1)])


def _leaves(name: str, value: JsonValue) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(f"{name}.{key}".removeprefix("."), child)
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for index, part in enumerate(value):
            yield from _leaves(f"{name}.{index}", part)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or UNKNOWN
    else:
        yield name, one_line(yes_no(value) if isinstance(value, bool) else str(value))


def one_line(text: str | None) -> str:
    """Collapse whitespace to single spaces; UNKNOWN if nothing is left."""
    return " ".join((text or "").split()) or UNKNOWN


def optional(value: object) -> str:
    """Format a value, floats in their shortest form; UNKNOWN for None."""
    return UNKNOWN if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


def whole_ms(value: float | None) -> str:
    return UNKNOWN if value is None else str(round(value))


def gib(size: int) -> str:
    """Format bytes in GiB, the unit in which GPU memory is stated."""
    return f"{size / 2**30:.1f}"


def size(count: float) -> str:
    """Format bytes in the largest unit of which there is at least one."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def age(since: datetime, now: datetime | None = None) -> str:
    """Format the time since `since`; 0 s if the queen's clock is ahead of this machine's."""
    return duration(((now or datetime.now(UTC)) - since).total_seconds())


def duration(seconds: float) -> str:
    """Format in the largest unit of which there are at least two."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def ordinal(number: int) -> str:
    """Format as 1st, 2nd, 3rd, 4th, 11th, 21st."""
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else suffix}"


def queue_position(position: int, predicted_start_ms: int | None) -> str:
    """Format a task's place behind `position` others; `predicted_start_ms` is None if no suitable pool is ready."""
    if predicted_start_ms is None:
        return f"{ordinal(position + 1)} in the queue, no pool for it is ready"
    return f"{ordinal(position + 1)} in the queue, about {duration(max(1, predicted_start_ms / 1000))}"
