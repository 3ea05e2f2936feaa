"""Parse pools files: the pools in them, or all problems, each with file, line and key."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine_provisioner.modes.registry import mode_names
from engine_provisioner.spec.policies import contradictions
from engine_provisioner.spec.pool_spec import Pool, PoolsFile
from engine_provisioner.spec.validation_messages import message_for
from llama_orch.contracts.validation import InvalidField, Location, indexed, invalid_fields
from llama_orch.files.toml_lines import locate

POOLS_LIMIT = 256


@dataclass(frozen=True)
class FileProblem:
    """A problem in a pools file; `key` is empty for the file as a whole."""

    path: Path
    line: int | None
    key: str
    problem: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{where}: {self.key}: {self.problem}" if self.key else f"{where}: {self.problem}"


class PoolsFileError(Exception):
    """The pools files are invalid; `problems` has all problems in the order of the files."""

    def __init__(self, problems: list[FileProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True)
class Document:
    """A file that is valid TOML: its tables, and the line of each key."""

    path: Path
    tables: dict[str, Any]
    lines: dict[Location, int]

    def line(self, location: Location) -> int | None:
        """Return the line of `location`, or of the nearest table around it."""
        while location:
            if location in self.lines:
                return self.lines[location]
            location = location[:-1]
        return None

    def problem(self, location: Location, problem: str) -> FileProblem:
        return FileProblem(self.path, self.line(location), indexed(location), problem)

    @property
    def pools(self) -> list[Any]:
        """The pools as they are written; not validated."""
        pools = self.tables.get("pools")
        return pools if isinstance(pools, list) else []

    @property
    def groups(self) -> list[str]:
        """The names of the groups that the file declares; not validated."""
        groups = self.tables.get("groups")
        return list(groups) if isinstance(groups, dict) else []


def parse(raw: bytes, path: Path) -> list[Pool]:
    """Return the pools in the document `raw`; problems name `path`. Raises only PoolsFileError."""
    return parse_all([(path, raw)])


def parse_all(files: Sequence[tuple[Path, bytes]]) -> list[Pool]:
    """Return the pools of several files, which share their groups. Raises only PoolsFileError."""
    return [pool for _path, pool in parse_files(files)]


def parse_files(files: Sequence[tuple[Path, bytes]]) -> list[tuple[Path, Pool]]:
    """Return the pools of several files, each with its file. Raises only PoolsFileError.

    While a file is not valid TOML, only that is reported: the others may refer to what it declares.
    """
    documents, found = [], []
    for path, raw in files:
        try:
            documents.append(_document(raw, path))
        except PoolsFileError as error:
            found += error.problems
    if found:
        raise PoolsFileError(found)
    valid: list[tuple[Path, PoolsFile]] = []
    for document in documents:
        try:
            valid.append((document.path, PoolsFile.model_validate(document.tables)))
        except ValidationError as error:
            found += [_problem(document, each) for each in invalid_fields(error, values=True)]
    found += [*_duplicates(documents), *_contradictions(documents)]
    count = sum(len(document.pools) for document in documents)
    if count > POOLS_LIMIT and len(documents) > 1:
        found.append(
            FileProblem(
                documents[-1].path,
                None,
                "",
                f"is one of {len(documents)} files with {count} pools; at most {POOLS_LIMIT} are allowed",
            )
        )
    if found:
        order = [document.path for document in documents]
        raise PoolsFileError(sorted(found, key=lambda problem: (order.index(problem.path), problem.line or 0)))
    groups = {name: group for _path, file in valid for name, group in file.groups.items()}
    return [(path, pool.in_groups(groups)) for path, file in valid for pool in file.pools]


def _document(raw: bytes, path: Path) -> Document:
    try:
        text = raw.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PoolsFileError([FileProblem(path, line, "", "is not UTF-8 text")]) from error
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise PoolsFileError([_syntax(path, str(error))]) from error
    except RecursionError as error:
        raise PoolsFileError([FileProblem(path, None, "", "is nested too deeply")]) from error
    return Document(path, tables, locate(text.replace("\r\n", "\n")))


def _syntax(path: Path, text: str) -> FileProblem:
    match = re.search(r" \(at line (\d+), column \d+\)$", text)
    line = int(match[1]) if match else None
    reason = text[: match.start()] if match else text.removesuffix(" (at end of document)")
    return FileProblem(path, line, "", f"is not valid TOML: {reason}")


def _in_document(location: Location) -> Location:
    """Return `location` without the mode, which pydantic adds after `provisioning`."""
    if len(location) > 3 and location[2] == "provisioning" and location[3] in mode_names():
        return (*location[:3], *location[4:])
    return location


def _problem(document: Document, found: InvalidField) -> FileProblem:
    shown = _in_document(found.location)
    while found.kind != "missing" and len(shown) > 1 and shown not in document.lines:
        shown = shown[:-1]  # a key that is not in the document: model.ref for model = "…"
    return document.problem(shown, message_for(found))


def _duplicates(documents: Sequence[Document]) -> Iterator[FileProblem]:
    """Yield ids and ports that two pools share, and groups that are declared twice.

    Searches the raw documents, to report them along with other problems.
    """
    seen: dict[tuple[str, Any], tuple[Document, int | None]] = {}
    for document in documents:
        for name in document.groups:
            where = document.line(("groups", name))
            first, line = seen.setdefault(("groups", name), (document, where))
            if first is not document:
                problem = f"is already declared at {first.path}:{line}; declare each group once"
                yield document.problem(("groups", name), problem)
        for index, pool in enumerate(document.pools):
            for key, value in _claims(pool):
                location: Location = ("pools", index, key)
                where = document.line(location)
                first, line = seen.setdefault((key, value), (document, where))
                if (first, line) != (document, where):
                    by = f"on line {line}" if first is document else f"at {first.path}:{line}"
                    problem = f"{value} is already used by the pool {by}; each pool needs its own"
                    yield document.problem(location, problem)


def _claims(pool: Any) -> list[tuple[str, str | int]]:
    """Return what only one pool may have, as key and value."""
    if not isinstance(pool, dict):
        return []
    ports = pool.get("ports")
    claims = [("id", pool.get("id")), *(("ports", port) for port in (ports if isinstance(ports, list) else [])[:8])]
    return [(key, value) for key, value in claims if isinstance(value, str | int)]


def _contradictions(documents: Sequence[Document]) -> Iterator[FileProblem]:
    """Yield the contradictions in each pool whose keys are valid."""
    declared = frozenset(name for document in documents for name in document.groups)
    for document in documents:
        for index, raw in enumerate(document.pools):
            try:
                pool = Pool.model_validate(raw)
            except ValidationError:
                continue
            for location, problem in contradictions(pool, declared):
                yield document.problem(("pools", index, *location), problem)
