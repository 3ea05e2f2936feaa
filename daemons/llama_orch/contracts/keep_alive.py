"""How long an idle model stays loaded, written as Ollama does: `5m`, `90s`, `1.5h`, a number of seconds, 0, or -1."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat, StrictInt, StrictStr

PATTERN = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,6})?)(?P<unit>ms|s|m|h|d)?")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
LONGEST_S = 31_536_000.0
EXPECTED = "must be a duration such as 5m, 90s or 1h, 0 to unload when idle, or -1 to keep the model loaded"


def keep_alive_s(value: str | float) -> float | None:
    """Return the seconds that `value` means; None for ever. Raises ValueError."""
    if value in (-1, "-1"):
        return None
    found = PATTERN.fullmatch(value if isinstance(value, str) else f"{value:f}")
    if found is None:
        raise ValueError(EXPECTED)
    seconds = float(found["number"]) * UNITS[found["unit"] or "s"]
    if seconds > LONGEST_S:
        raise ValueError("is longer than a year; use -1 to keep the model loaded")
    return seconds


def _valid(value: str | float) -> str | float:
    keep_alive_s(value)
    return value


KeepAlive = Annotated[StrictStr | StrictInt | StrictFloat, AfterValidator(_valid), Field(examples=["5m"])]
