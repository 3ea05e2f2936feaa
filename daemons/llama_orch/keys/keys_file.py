"""Parse keys.toml: the keys in it, or all problems, each with line and key.

The file has no secrets, but their digests. Messages name neither.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llama_orch.contracts.keys import KeysFile, KeySpec
from llama_orch.contracts.validation import InvalidField, Location, indexed, invalid_fields
from llama_orch.files.toml_lines import locate

DEFAULT_PATH = Path("/etc/llama-orch/keys.toml")
VARIABLE = "ORCHESTRATORD_KEYS_FILE"
CREDENTIAL = "keys.toml"
KEYS_LIMIT = 1000
FILE_LIMIT = 1 << 20
"""Bytes; a thousand keys with many limits each have half of it."""
FORMS: Mapping[str, str] = {
    "name": "consist of letters, digits and . _ @ -, begin with a letter or digit, and have at most 64 characters",
    "sha256": "be the SHA-256 digest of the secret, 64 lower-case hex digits, as orchctl key add writes it",
}


class KeysFileError(Exception):
    """The file is unusable; `problems` has all problems in the order of its lines, as `keys.toml:12: keys[0].x: …`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class _Document:
    path: Path
    tables: dict[str, Any]
    lines: dict[Location, int]

    def line(self, location: Location) -> int | None:
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location)

    def problem(self, location: Location, text: str) -> tuple[int, str]:
        line = self.line(location)
        where = f"{self.path}:{line}" if line else str(self.path)
        return line or 0, f"{where}: {indexed(location)}: {text}" if location else f"{where}: {text}"


def read(path: Path) -> bytes | None:
    """Return the content of the file, None if it does not exist. Blocks. Raises KeysFileError."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeysFileError([f"{path}: cannot be read: {error.strerror}"]) from error
    if len(raw) > FILE_LIMIT:
        raise KeysFileError([f"{path}: is larger than {FILE_LIMIT >> 20} MiB"])
    return raw


def parse(raw: bytes, path: Path) -> tuple[KeySpec, ...]:
    """Return the keys in the document `raw`; problems name `path`. Raises only KeysFileError."""
    document = _document(raw, path)
    found = [*_too_many(document), *_duplicates(document)]
    try:
        file = KeysFile.model_validate(document.tables)
    except ValidationError as error:
        found += [document.problem(each.location, _message(each)) for each in invalid_fields(error)]
    if found:
        raise KeysFileError([text for _line, text in sorted(found)])
    return file.keys


def _document(raw: bytes, path: Path) -> _Document:
    try:
        text = raw.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise KeysFileError([f"{path}:{line}: is not UTF-8 text"]) from error
    except RecursionError as error:
        raise KeysFileError([f"{path}: is nested too deeply"]) from error
    except ValueError as error:
        match = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        where = f"{path}:{match[1]}" if match else str(path)
        reason = str(error)[: match.start()] if match else str(error).removesuffix(" (at end of document)")
        raise KeysFileError([f"{where}: is not valid TOML: {reason}"]) from error
    return _Document(path, tables, locate(text.replace("\r\n", "\n")))


def _message(found: InvalidField) -> str:
    name = str(found.location[-1]) if found.location else ""
    if found.kind == "string_pattern_mismatch" and name in FORMS:
        return f"must {FORMS[name]}"
    if found.kind == "extra_forbidden":
        known = KeySpec if len(found.location) > 1 else KeysFile
        return f"is not a key of this table; allowed: {', '.join(known.model_fields)}"
    return found.text


def _too_many(document: _Document) -> Iterator[tuple[int, str]]:
    if len(_tables(document)) > KEYS_LIMIT:
        yield document.problem((), f"has {len(_tables(document))} keys; at most {KEYS_LIMIT} are allowed")


def _duplicates(document: _Document) -> Iterator[tuple[int, str]]:
    """Yield names and digests that two keys share."""
    seen: dict[tuple[str, str], int | None] = {}
    for index, table in enumerate(_tables(document)):
        for key in ("name", "sha256"):
            value, location = table.get(key) if isinstance(table, dict) else None, ("keys", index, key)
            if not isinstance(value, str):
                continue
            if (key, value) in seen:
                shown = f" {value!r}" if key == "name" and re.fullmatch(r"[ -~]{1,64}", value) else ""
                text = f"the {'name' if key == 'name' else 'digest'}{shown} is already that of the key on line "
                yield document.problem(location, f"{text}{seen[key, value]}; each key needs its own")
            else:
                seen[key, value] = document.line(location)


def _tables(document: _Document) -> list[Any]:
    keys = document.tables.get("keys")
    return keys if isinstance(keys, list) else []
