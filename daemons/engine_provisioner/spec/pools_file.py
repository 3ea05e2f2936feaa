"""From the pools file to pools, or to every problem in it at once, each with file, line and key."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from engine_provisioner.spec.policies import wrong
from engine_provisioner.spec.pool_spec import Model, Pool, PoolsFile, Timeouts
from engine_provisioner.spec.provisioning_spec import Binary, Build, Container, External, Package, Source
from engine_provisioner.spec.toml_lines import locate
from llama_orch.contracts.validation import InvalidField, Location, indexed, invalid_fields

LIMIT_BYTES = 1 << 20
HERE, SYSTEM = Path("pools.toml"), Path("/etc/llama-orch/pools.toml")
MODES: dict[str, type[BaseModel]] = {
    "external": External,
    "source": Source,
    "container": Container,
    "package": Package,
    "binary": Binary,
}
TABLES: dict[tuple[str, ...], type[BaseModel]] = {
    (): PoolsFile,
    ("pools",): Pool,
    ("pools", "model"): Model,
    ("pools", "timeouts"): Timeouts,
    ("pools", "provisioning", "source", "build"): Build,
    **{("pools", "provisioning", mode): table for mode, table in MODES.items()},
}
KINDS = {"string": "text", "int": "a whole number", "bool": "true or false", "list": "a list", "dict": "a table"}
KINDS |= {"float": "a number", "model": "a table"}
PATTERNS = {
    "id": "lower-case letters, digits and -, not first a -, at most 63 of them",
    "checksum": "sha256: and 64 lower-case hex digits",
}


@dataclass(frozen=True)
class FileProblem:
    """One thing in the pools file that cannot be used."""

    path: Path
    line: int | None
    key: str
    problem: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{where}: {self.key}: {self.problem}" if self.key else f"{where}: {self.problem}"


class PoolsFileError(Exception):
    """The pools file cannot be used; `problems` names everything that is wrong with it."""

    def __init__(self, problems: list[FileProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def path_for(configured: Path | None) -> Path:
    """The pools file: the configured one, else one in the working directory, else the system's."""
    if configured is not None:
        return configured
    return HERE if HERE.exists() else SYSTEM


def read(path: Path) -> list[Pool] | None:
    """The pools in the file at `path`, None where there is no such file.

    Raises PoolsFileError. Blocks on the disk: at most LIMIT_BYTES are read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); it must be a file that engine-provisioner may read"
        raise PoolsFileError([FileProblem(path, None, "", problem)]) from error
    if len(raw) > LIMIT_BYTES:
        raise PoolsFileError([FileProblem(path, None, "", f"is longer than {LIMIT_BYTES} bytes")])
    return parse(raw, path)


def parse(raw: bytes, path: Path) -> list[Pool]:
    """The pools in the document `raw`; `path` is named in problems. Raises PoolsFileError, nothing else."""
    try:
        text = raw.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PoolsFileError([FileProblem(path, line, "", "is not UTF-8 text")]) from error
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise PoolsFileError([_syntax(path, str(error))]) from error
    except RecursionError as error:
        raise PoolsFileError([FileProblem(path, None, "", "is nested too deeply")]) from error
    lines = locate(text.replace("\r\n", "\n"))
    found: list[FileProblem] = []
    try:
        pools = PoolsFile.model_validate(document).pools
    except ValidationError as error:
        pools = []
        found = [_problem(path, lines, each) for each in invalid_fields(error, values=True)]
    found += [*_clashes(path, lines, document), *_policies(path, lines, document)]
    if found:
        raise PoolsFileError(sorted(found, key=lambda problem: problem.line or 0))
    return pools


def _syntax(path: Path, text: str) -> FileProblem:
    match = re.search(r" \(at line (\d+), column \d+\)$", text)
    line = int(match[1]) if match else None
    words = text[: match.start()] if match else text.removesuffix(" (at end of document)")
    return FileProblem(path, line, "", f"is not TOML: {words}")


def _line(lines: dict[Location, int], location: Location) -> int | None:
    """The line of `location`, or of the nearest table around it."""
    while location:
        if location in lines:
            return lines[location]
        location = location[:-1]
    return None


def _in_document(location: Location) -> Location:
    """`location` without what pydantic adds: the mode's tag after `provisioning`."""
    if len(location) > 3 and location[2] == "provisioning" and location[3] in MODES:
        return (*location[:3], *location[4:])
    return location


def _problem(path: Path, lines: dict[Location, int], found: InvalidField) -> FileProblem:
    shown = _in_document(found.location)
    while found.kind != "missing" and len(shown) > 1 and shown not in lines:
        shown = shown[:-1]  # a key that only stands for what was written: model.ref for model = "…"
    words = _words(found)
    return FileProblem(path, _line(lines, shown), indexed(shown), words)


def _words(found: InvalidField) -> str:
    kind, location = found.kind, found.location
    name = str(location[-1]) if location else ""
    if kind == "extra_forbidden":
        table = TABLES.get(tuple(part for part in location[:-1] if isinstance(part, str)))
        return f"is not a key of this table; allowed: {', '.join(table.model_fields) if table else 'none'}"
    if kind == "string_pattern_mismatch":
        return f"must be {PATTERNS[name]}" if name in PATTERNS else "has characters that are not allowed here"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"needs a mode; allowed: {', '.join(MODES)}"
    if name == "model" and kind == "model_type":
        return "must be a reference such as file:/srv/models/model.gguf, or a table with ref"
    if kind.endswith("_type") and kind.removesuffix("_type") in KINDS:
        return f"must be {KINDS[kind.removesuffix('_type')]}"
    return found.text


def _clashes(path: Path, lines: dict[Location, int], document: dict[str, Any]) -> Iterator[FileProblem]:
    """Pools that cannot live side by side; looked for in the raw document, so that they show beside the rest."""
    seen: dict[tuple[str, Any], int] = {}
    pools = document.get("pools")
    for index, pool in enumerate(pools if isinstance(pools, list) else []):
        if not isinstance(pool, dict):
            continue
        ports = pool.get("ports")
        claims = [("id", pool.get("id")), *(("ports", p) for p in (ports if isinstance(ports, list) else [])[:8])]
        for key, value in claims:
            if not isinstance(value, str | int):
                continue
            first = seen.setdefault((key, value), index)
            if first != index:
                where = _line(lines, ("pools", first, key))
                problem = f"{value} is already taken by the pool on line {where}; each pool needs its own"
                yield FileProblem(path, _line(lines, ("pools", index, key)), f"pools[{index}].{key}", problem)


def _policies(path: Path, lines: dict[Location, int], document: dict[str, Any]) -> Iterator[FileProblem]:
    """What is wrong with a pool though each key of it is right; of pools with wrong keys nothing is said."""
    pools = document.get("pools")
    for index, raw in enumerate(pools if isinstance(pools, list) else []):
        try:
            pool = Pool.model_validate(raw)
        except ValidationError:
            continue
        for location, problem in wrong(pool):
            full: Location = ("pools", index, *location)
            yield FileProblem(path, _line(lines, full), indexed(full), problem)
