"""Completion for shells: `orchctl __complete WORD...` prints what the last word may become, one candidate a line.

The scripts for bash, zsh and fish only pass on the words and show the answer. All words come from the declarations of
the commands, all ids from the commands that list them.
"""

import io
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field

from orchctl.command import COMMON_ARGUMENTS, Argument, CliCommand, ListedValues
from orchctl.command_line import CommandEntry, command_line
from orchctl.index import INDEX

LINE = "--line"
"""Before a command line as bash has it: bash itself splits words at colons, which model references contain."""
FILES = ":files"
"""Printed in place of candidates where the shell completes file names."""
LIMIT_S = 0.6
"""How long to wait for ids. With the start of Python, the shell waits less than a second."""

Entries = Sequence[CliCommand | CommandEntry]


@dataclass(frozen=True)
class Candidate:
    text: str
    help: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the last word may become: `known` words, file names, or what a command lists for the queen at `url`."""

    known: Sequence[Candidate] = ()
    files: bool = False
    listed: str = ""
    url: str | None = None


def complete(words: Sequence[str]) -> None:
    """Print the candidates, with their help after a tab. Prints nothing if there are none, or the queen is away."""
    if words[:1] == [LINE]:
        words = split_line(" ".join(words[1:]))
    *before, current = words or [""]
    wanted = wanted_after(before, current, INDEX)
    if wanted.files:
        print(FILES)
        return
    ids = (Candidate(text) for text in list_ids(wanted.listed, wanted.url)) if wanted.listed else ()
    for candidate in (*wanted.known, *ids):
        if candidate.text.startswith(current) and candidate.text.isprintable():
            print(f"{candidate.text}\t{candidate.help}".rstrip("\t"))


def split_line(line: str) -> list[str]:
    """Return the words after the name of the command; the last one is empty if the line ends with a space."""
    for closing in ("", '"', "'"):
        try:
            words = shlex.split(line + closing)
        except ValueError:  # an open quote, or a backslash at the end
            continue
        ended = not closing and line[-1:].isspace() and not line.endswith("\\ ")
        return [*words[1:], ""] if ended or len(words) < 2 else words[1:]
    return [""]


@dataclass
class _Position:
    """Where the words so far have led."""

    entries: Entries
    command: CliCommand | None = None
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    positional: int = 0
    url: str | None = None
    pending: Argument | None = None
    """The option that the next word is the value of."""
    options_ended: bool = False

    def take(self, word: str) -> None:
        if self.pending:
            self.url = word if "--url" in self.pending.names else self.url
            self.pending = None
        elif word == "--" and not self.options_ended:
            self.options_ended = True
        elif word.startswith("-") and not self.options_ended:
            option = _by_name(self.options()).get(word)
            self.pending = option if option and option.takes_value else None
        elif (found := next((each for each in self.entries if each.name == word), None)) and not self.positional:
            self.command = found.load() if isinstance(found, CommandEntry) else found
            self.entries = self.command.subcommands
        else:
            self.positional += 1

    def options(self) -> Iterator[Argument]:
        yield from COMMON_ARGUMENTS
        yield from (each for each in self.command.arguments if each.is_option) if self.command else ()

    def wanted(self) -> Wanted:
        """What a word that is no option may be."""
        names = [Candidate(each.name, each.help) for each in self.entries] if not self.positional else []
        positional = [each for each in self.command.arguments if not each.is_option] if self.command else []
        if self.positional < len(positional):
            return self.value(positional[self.positional], names)
        if positional and positional[-1].settings.get("nargs") in ("*", "+"):
            return self.value(positional[-1], names)
        return Wanted(names)

    def value(self, argument: Argument, known: Iterable[Candidate] = ()) -> Wanted:
        """What the value of `argument` may be."""
        match argument.completion:
            case "files":
                return Wanted(files=True)
            case ListedValues(command, words):
                return Wanted([*known, *map(Candidate, words)], listed=command, url=self.url)
        return Wanted([*known, *map(Candidate, argument.settings.get("choices") or ())])


def wanted_after(before: Sequence[str], current: str, entries: Entries) -> Wanted:
    """Return what the word `current` may become after the words `before`."""
    position = _Position(entries)
    for word in before:
        position.take(word)
    if position.pending:
        return position.value(position.pending)
    if current.startswith("-") and not position.options_ended:
        options = [Candidate(name, _summary(each)) for name, each in _by_name(position.options()).items()]
        version = [Candidate("--version", "print the version")] if position.command is None else []
        longs = [each for each in (*options, *version, Candidate("--help", "print a summary")) if each.text[1] == "-"]
        return Wanted(longs)
    return position.wanted()


def _by_name(arguments: Iterable[Argument]) -> dict[str, Argument]:
    return {name: each for each in arguments for name in each.names}


def _summary(argument: Argument) -> str:
    """Return the help of an option up to its first remark."""
    text = str(argument.settings.get("help") or "")
    return " ".join(text.partition(" (")[0].partition(";")[0].split())


def list_ids(listed: str, url: str | None) -> list[str]:
    """Return what `orchctl LISTED -o name` prints; nothing if that fails or takes more than LIMIT_S seconds."""
    import trio

    return trio.run(query_ids, listed, url)


async def query_ids(listed: str, url: str | None) -> list[str]:
    """Do what `list_ids` says."""
    import trio

    from orchctl.destination import client_for
    from orchctl.errors import CommandError

    given = ["--url", url] if url else []
    out = io.StringIO()
    try:
        options = command_line(INDEX).parse_args([*listed.split(), "-o", "name", *given])
        with redirect_stdout(out), redirect_stderr(io.StringIO()), trio.move_on_after(LIMIT_S):
            await options.run(options, client_for(options.url))
    except (CommandError, OSError):
        return []
    return out.getvalue().splitlines()
