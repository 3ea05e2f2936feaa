"""Change the text of keys.toml and leave everything else in it, comments too, as it is. Pure functions."""

import json
import re
from datetime import datetime

from llama_orch.contracts.keys import KeySpec

HEAD = """\
# Keys of users: llama-orch-keys(5). orchctl key add, list and revoke change this file; so may you.
# systemctl reload queen-rbee applies it.
"""
HEADER = re.compile(r"^\s*\[", re.MULTILINE)


def with_key(text: str, key: KeySpec) -> str:
    """Return `text` with the table of a new key at its end."""
    before = text if text.strip() else HEAD
    return f"{before.rstrip(chr(10))}\n\n{table(key)}"


def table(key: KeySpec) -> str:
    """Return the table [[keys]] of `key`, without what is the default."""
    lines = ["[[keys]]"]
    for name in KeySpec.model_fields:
        value = getattr(key, name)
        if value != KeySpec.model_fields[name].default:
            lines.append(f"{name} = {_value(value)}")
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def without_table(text: str, line: int) -> str:
    """Return `text` without the table whose header is on line `line`, counted from 1, up to the next header.

    Comments directly above the next header belong to that one and stay.
    """
    lines = text.splitlines(keepends=True)
    end = line
    while end < len(lines) and not lines[end].lstrip().startswith("["):
        end += 1
    if end < len(lines):
        while end > line and lines[end - 1].lstrip().startswith("#"):
            end -= 1
    kept = lines[: line - 1] + lines[end:]
    return "".join(kept).rstrip("\n") + "\n" if "".join(kept).strip() else ""
