"""Read the pools file: the pools in it, or all problems, each with file, line and key."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine_provisioner.modes.registry import mode_names
from engine_provisioner.spec.policies import contradictions
from engine_provisioner.spec.pool_spec import Pool, PoolsFile
from engine_provisioner.spec.toml_lines import locate
from engine_provisioner.spec.validation_messages import message_for
from llama_orch.contracts.validation import InvalidField, Location, indexed, invalid_fields

LIMIT_BYTES = 1 << 20
LOCAL_FILE, SYSTEM_FILE = Path("pools.toml"), Path("/etc/llama-orch/pools.toml")


@dataclass(frozen=True)
class FileProblem:
    """A problem in the pools file; `key` is empty for the file as a whole."""

    path: Path
    line: int | None
    key: str
    problem: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{where}: {self.key}: {self.problem}" if self.key else f"{where}: {self.problem}"


class PoolsFileError(Exception):
    """The pools file is invalid; `problems` has all problems in the order of the file."""

    def __init__(self, problems: list[FileProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def path_for(configured: Path | None) -> Path:
    """Return the path of the pools file: as configured, else in the working directory, else the system's."""
    if configured is not None:
        return configured
    return LOCAL_FILE if LOCAL_FILE.exists() else SYSTEM_FILE


def read(path: Path) -> list[Pool] | None:
    """Return the pools in the file at `path`, or None if there is no such file.

    Reads at most LIMIT_BYTES. Blocks; raises PoolsFileError.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); it must be a file that engine-provisioner can read"
        raise PoolsFileError([FileProblem(path, None, "", problem)]) from error
    if len(raw) > LIMIT_BYTES:
        raise PoolsFileError([FileProblem(path, None, "", f"is larger than {LIMIT_BYTES} bytes")])
    return parse(raw, path)


def parse(raw: bytes, path: Path) -> list[Pool]:
    """Return the pools in the document `raw`; problems name `path`. Raises only PoolsFileError."""
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
        pools = PoolsFile.model_validate(document).resolved
    except ValidationError as error:
        pools = []
        found = [_problem(path, lines, each) for each in invalid_fields(error, values=True)]
    found += [*_duplicates(path, lines, document), *_contradictions(path, lines, document)]
    if found:
        raise PoolsFileError(sorted(found, key=lambda problem: problem.line or 0))
    return pools


def _syntax(path: Path, text: str) -> FileProblem:
    match = re.search(r" \(at line (\d+), column \d+\)$", text)
    line = int(match[1]) if match else None
    reason = text[: match.start()] if match else text.removesuffix(" (at end of document)")
    return FileProblem(path, line, "", f"is not valid TOML: {reason}")


def _line(lines: dict[Location, int], location: Location) -> int | None:
    """Return the line of `location`, or of the nearest table around it."""
    while location:
        if location in lines:
            return lines[location]
        location = location[:-1]
    return None


def _in_document(location: Location) -> Location:
    """Return `location` without the mode, which pydantic adds after `provisioning`."""
    if len(location) > 3 and location[2] == "provisioning" and location[3] in mode_names():
        return (*location[:3], *location[4:])
    return location


def _problem(path: Path, lines: dict[Location, int], found: InvalidField) -> FileProblem:
    shown = _in_document(found.location)
    while found.kind != "missing" and len(shown) > 1 and shown not in lines:
        shown = shown[:-1]  # a key that is not in the document: model.ref for model = "…"
    return FileProblem(path, _line(lines, shown), indexed(shown), message_for(found))


def _duplicates(path: Path, lines: dict[Location, int], document: dict[str, Any]) -> Iterator[FileProblem]:
    """Yield ids and ports that two pools share. Searches the raw document, to report them along with other problems."""
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
                problem = f"{value} is already used by the pool on line {where}; each pool needs its own"
                yield FileProblem(path, _line(lines, ("pools", index, key)), f"pools[{index}].{key}", problem)


def _contradictions(path: Path, lines: dict[Location, int], document: dict[str, Any]) -> Iterator[FileProblem]:
    """Yield the contradictions in each pool whose keys are valid."""
    pools, groups = document.get("pools"), document.get("groups")
    declared = frozenset(groups) if isinstance(groups, dict) else frozenset()
    for index, raw in enumerate(pools if isinstance(pools, list) else []):
        try:
            pool = Pool.model_validate(raw)
        except ValidationError:
            continue
        for location, problem in contradictions(pool, declared):
            full: Location = ("pools", index, *location)
            yield FileProblem(path, _line(lines, full), indexed(full), problem)
