"""Write a pool as TOML."""

import json
import re
from collections.abc import Mapping

BARE = re.compile(r"[A-Za-z0-9_-]+")


def pool_text(keys: Mapping[str, object]) -> str:
    """Return a pools file with one pool. Values are strings, numbers, booleans, lists and tables of these."""
    lines = [f"{name} = {_value(value)}" for name, value in keys.items() if not isinstance(value, Mapping)]
    for name, value in keys.items():
        if isinstance(value, Mapping):
            lines += ["", f"[pools.{name}]", *(f"{_key(key)} = {_value(inner)}" for key, inner in value.items())]
    return "\n".join(["[[pools]]", *lines, ""])


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    # strings of JSON are those of TOML, but for DEL
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else _value(key)
