"""Translate pydantic's validation errors into the project's messages: a path and a plain sentence for each field."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

Location = tuple[int | str, ...]

TEXTS: Mapping[str, str] = {
    "extra_forbidden": "is not a known field",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "missing": "is required",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_long": "has more than {max_length} items",
    "too_short": "must have at least {min_length} items",
}
"""Texts by pydantic's error type. Other types keep pydantic's message, with "must be" for "Input should be"."""
SHOWS_VALUE = frozenset(("greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error", "enum"))
VALUE_LIMIT = 64


@dataclass(frozen=True)
class InvalidField:
    """One field that failed validation. `kind` is pydantic's error type; `location` is () for the whole document.

    `value` is None unless values were asked for: see `invalid_fields`.
    """

    location: Location
    kind: str
    text: str
    context: Mapping[str, object] = field(default_factory=dict)
    value: object = None


def invalid_fields(error: ValidationError, *, values: bool = False) -> list[InvalidField]:
    """Return each invalid field, in pydantic's order.

    With `values` the text ends with the value where that helps and is short. Leave it off for data that may be secret.
    """
    return [
        InvalidField(item["loc"], item["type"], _text(item["type"], item), item.get("ctx", {}), item.get("input"))
        for item in error.errors(include_url=False, include_input=values)
    ]


def dotted(location: Location, whole: str = "body") -> str:
    """Return `location` as `messages.0.role`, or `whole` for the document itself."""
    return ".".join(map(str, location)) or whole


def indexed(location: Location) -> str:
    """Return `location` as `messages[0].role`."""
    first, *rest = location or ("",)
    return str(first) + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)


def summary(fields: Iterable[InvalidField], limit: int, whole: str = "body") -> str:
    """Return the first `limit` fields and their texts in one line, and how many more there are."""
    lines = [f"{dotted(each.location, whole)}: {each.text}" for each in fields]
    more = len(lines) - limit
    return "; ".join(lines[:limit]) + (f"; and {more} more" if more > 0 else "")


def _text(kind: str, item: Mapping[str, object]) -> str:
    context = item.get("ctx")
    template = TEXTS.get(kind)
    if template is not None:
        text = template.format_map(context if isinstance(context, Mapping) else {})
    else:
        text = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    value = item.get("input")
    shown = kind in SHOWS_VALUE and isinstance(value, bool | int | float | str) and len(str(value)) <= VALUE_LIMIT
    return f"{text} (got {value!r})" if shown else text
