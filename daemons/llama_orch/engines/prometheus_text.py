"""Reads values from the metrics of engines, in the Prometheus text format."""

import math
import re


def samples(name: bytes, metrics: bytes) -> list[float]:
    """Return the finite values of a metric, one for each of its series."""
    found = re.findall(rb"^%s(?:\{.*\})?[ \t]+(\S+)" % re.escape(name), metrics, re.MULTILINE)
    return [value for text in found if (value := _finite(text)) is not None]


def total(name: bytes, metrics: bytes) -> int | None:
    """Return the sum of a counter's series; None if it has none."""
    values = samples(name, metrics)
    return max(0, round(sum(values))) if values else None


def _finite(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e18 else None
