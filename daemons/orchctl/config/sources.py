"""Where the value of each setting of a daemon comes from. Pure functions over the unit's files and environments."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llama_orch.service.unit_environment import CREDENTIALS, assignments
from llama_orch.settings.declaration import Declared
from llama_orch.settings.environment_file import lines_of, parse
from llama_orch.urls import hidden_in

DEFAULT = "default"
SET = "(set)"


@dataclass(frozen=True)
class TextFile:
    """A file and its text; None if this user cannot read it."""

    path: Path
    text: str | None


@dataclass(frozen=True)
class UnitSources:
    """What decides about the environment of a daemon.

    `fragments` are the unit file and its drop-ins, `files` the environment files, both in the order in which systemd
    reads them. `credentials` are the names of the credentials that are not empty. `process` is the environment of the
    running daemon; None if it does not run, or this user cannot see it. Without a `unit`, `shell` is in effect: the
    environment of a daemon that the user would start.
    """

    daemon: str
    unit: str | None
    fragments: Sequence[TextFile] = ()
    files: Sequence[TextFile] = ()
    credentials: frozenset[str] = frozenset()
    process: Mapping[str, str] | None = None
    shell: Mapping[str, str] = field(default_factory=dict)
    running: bool = False

    @property
    def unreadable(self) -> list[Path]:
        return [each.path for each in (*self.fragments, *self.files) if each.text is None]


@dataclass(frozen=True)
class Assignment:
    """A value and where it was assigned, as in `/etc/llama-orch/queen-rbee.env:12`."""

    value: str
    source: str


@dataclass(frozen=True)
class Setting:
    """One setting as it takes effect at the next start. A secret is `(set)`.

    `running` is the value of the running daemon if that differs: it needs a restart.
    """

    variable: str
    value: str
    source: str
    default: str
    running: str | None = None

    @property
    def changed(self) -> bool:
        return self.source != DEFAULT or self.running is not None


def settings_of(sources: UnitSources, declared: Sequence[Declared]) -> list[Setting]:
    """Return every setting of the daemon, in the order of its declarations."""
    assigned = assignments_of(sources)
    return [_setting(each, assigned, sources) for each in declared]


def assignments_of(sources: UnitSources) -> dict[str, Assignment]:
    """Return the variables of the environment with their sources; an empty value counts as unset.

    Environment files override the unit's Environment=, as in systemd.exec(5). A variable that only the running daemon
    has comes from the manager's environment.
    """
    if sources.unit is None:
        found = {name: Assignment(value, "environment of this shell") for name, value in sources.shell.items()}
        return {name: each for name, each in found.items() if each.value}
    found = {}
    for fragment in sources.fragments:
        for number, line in _environment_lines(fragment.text or ""):
            if not line:
                found.clear()
            for name, value in _parsed(line).items():
                found[name] = Assignment(value, f"{fragment.path}:{number}")
    for file in sources.files:
        text = file.text or ""
        lines = lines_of(text)
        found |= {name: Assignment(value, f"{file.path}:{lines[name]}") for name, value in parse(text).items()}
    for name, value in (sources.process or {}).items():
        found.setdefault(name, Assignment(value, "environment of the process"))
    return {name: each for name, each in found.items() if each.value}


def _environment_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number and value of each Environment= line of a unit file, with continued lines joined."""
    number, joined = 0, ""
    for count, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith(("#", ";")):
            continue
        number = number if joined else count
        joined += line
        if line.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        if match := re.match(r"\s*Environment\s*=\s*(.*?)\s*$", joined):
            yield number, match[1]
        joined = ""


def _parsed(line: str) -> dict[str, str]:
    try:
        return assignments(line)
    except ValueError:  # unbalanced quotes, which systemd ignores with a warning
        return {}


def _setting(declared: Declared, assigned: Mapping[str, Assignment], sources: UnitSources) -> Setting:
    found = _found(declared, assigned, sources)
    value = declared.default if found is None else _shown(declared, found.value)
    running = _running(declared, found, sources)
    return Setting(declared.env, value, DEFAULT if found is None else found.source, declared.default, running)


def _found(declared: Declared, assigned: Mapping[str, Assignment], sources: UnitSources) -> Assignment | None:
    """Return the source in force. A token's credential comes before its file, and that before the variable."""
    if declared.credential and declared.credential in sources.credentials:
        return Assignment(SET, f"credential {declared.credential} ({CREDENTIALS / declared.credential})")
    if declared.file and (file := assigned.get(declared.file)):
        return Assignment(SET, f"file {file.value} ({declared.file} in {file.source})")
    return assigned.get(declared.env)


def _running(declared: Declared, found: Assignment | None, sources: UnitSources) -> str | None:
    """Return the value in the running daemon if it is another one. Of a secret only whether it is set is compared."""
    if sources.process is None or declared.credential:
        return None
    value, expected = sources.process.get(declared.env, ""), found.value if found else ""
    if value == expected:
        return None
    return _shown(declared, value) if value else f"{declared.default} (default)"


def _shown(declared: Declared, value: str) -> str:
    return SET if declared.secret else hidden_in(value)
