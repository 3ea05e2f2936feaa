"""Text for people: columns, one thing whole, and how a time, a count or a place in the queue reads."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, JsonValue

NOTHING = "-"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def whole(found: BaseModel, without: str = "") -> str:
    """Everything that is known of one thing but the field `without`: a line for each name and value."""
    document = found.model_dump(mode="json", exclude_none=True, exclude={without})
    return table([*_leaves("", document)])


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
