"""The values a pool's supervisor works with: an engine that can be run, and a command that runs it."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION_LIMIT = 256


@dataclass(frozen=True)
class Program:
    """Something that can be executed: its first words, and the file whose change makes it another one."""

    words: tuple[str, ...]
    file: Path


@dataclass(frozen=True)
class Engine:
    """A program that has been asked what it is: its version and the options that its --help names."""

    program: Program
    version: str
    options: frozenset[str]


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine's disk: `name` is what clients ask for, `digest` is sha256:… where it was checked."""

    name: str
    path: Path
    size_bytes: int
    digest: str | None = None


@dataclass(frozen=True)
class Command:
    """What is executed, with exactly this environment besides PATH, HOME and LANG."""

    argv: tuple[str, ...]
    env: Mapping[str, str]

    def document(self) -> bytes:
        """As the launch file that `exec_engine` reads; the same command gives the same bytes."""
        content = {"argv": list(self.argv), "env": dict(sorted(self.env.items()))}
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()

    @property
    def port(self) -> int | None:
        """The port that the engine is told to listen on."""
        return port_of(self.argv)


def port_of(argv: tuple[str, ...]) -> int | None:
    """The argument of --port in `argv`, where there is one and it is a number."""
    for name, value in itertools.pairwise(argv):
        if name == "--port" and value.isdigit():
            return int(value)
    return None
