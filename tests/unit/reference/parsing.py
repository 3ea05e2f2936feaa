"""The user's configuration reference as data. A line of an unknown form is an error, so that nothing is skipped."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

DOCUMENT = Path(__file__).with_name("CONFIGURATION.md")
DAEMON = re.compile(r"## (\S+) Configuration")
ENTRY = re.compile(r"#### ([A-Z][A-Z0-9_]+)")
FIELD = re.compile(r"- \*\*([A-Za-z ]+)\*\*:(?: (.*?))? *")
ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*?)(?:\s+#.*)?")
FIELDS = {"Type", "Default", "Required", "Range", "Valid Values", "Description", "Notes", "Security", "Example"}
QUOTED = re.compile(r"`([^`]+)`(?: \(([^()]+)\))?")
BETWEEN_ENTRIES = re.compile(r"|---|### .*")
NOTE = re.compile(r"  - .+")


class UnknownForm(Exception):
    """A line of the reference has an unknown form."""


@dataclass(frozen=True)
class Entry:
    """One variable of one daemon: its fields as text, and the lines of its example."""

    daemon: str
    env: str
    fields: dict[str, str] = field(default_factory=dict)
    example_lines: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.fields["Type"]

    @property
    def defaults(self) -> dict[str, str | None]:
        """The default for each profile; the key is "" if it is the same for both. None means no default."""
        text = self.fields["Default"]
        if text == "None":
            return {"": None}
        found = quoted(text)
        profiles = {note: value for value, note in found if note.endswith("_PROFILE")}
        if profiles and len(profiles) == len(found):
            return dict(profiles)
        [(value, _note)] = found
        return {"": value}

    @property
    def range(self) -> tuple[int, int] | None:
        """Minimum and maximum, if the entry has a range."""
        if "Range" not in self.fields:
            return None
        match = re.fullmatch(r"`(\d+)` to `(\d+)`(?: \([^()]+\))?", self.fields["Range"])
        if match is None:
            raise UnknownForm(self.fields["Range"])
        return int(match[1]), int(match[2])

    @property
    def values(self) -> tuple[str, ...]:
        """The valid values; empty if they are not listed."""
        return tuple(value for value, _note in quoted(self.fields.get("Valid Values", "")))

    @property
    def required(self) -> bool:
        """Whether the variable is required in CLOUD_PROFILE. No variable is required in both profiles."""
        known = {None: False, "Yes (for CLOUD_PROFILE)": True}
        if self.fields.get("Required") not in known:
            raise UnknownForm(self.fields["Required"])
        return known[self.fields.get("Required")]

    @property
    def example(self) -> str:
        [(name, value)] = assignments(self.example_lines)
        if name != self.env:
            raise UnknownForm(f"the example of {self.env} sets {name}")
        return value


@dataclass(frozen=True)
class SetUp:
    """The variables of one daemon in a complete example."""

    title: str
    daemon: str
    values: Mapping[str, str]


def quoted(text: str) -> list[tuple[str, str]]:
    """Parse a list such as "`a` (note), `b`" into values and notes."""
    parts = [QUOTED.fullmatch(part) for part in re.split(r", (?=`)", text)] if text else []
    if not all(parts):
        raise UnknownForm(text)
    return [(part[1], part[2] or "") for part in parts if part]


def assignments(lines: list[str]) -> list[tuple[str, str]]:
    """Parse lines of the form NAME=VALUE. Comments are skipped."""
    found = [ASSIGNMENT.fullmatch(line) for line in lines if line and not line.startswith("#")]
    if not all(found):
        raise UnknownForm(str(lines))
    return [(match[1], match[2]) for match in found if match]


def section(heading: str) -> list[str]:
    """Return the lines below `## heading`, up to the next heading of that level."""
    lines = DOCUMENT.read_text().splitlines()
    start = lines.index(f"## {heading}") + 1
    end = next((index for index in range(start, len(lines)) if lines[index].startswith("## ")), len(lines))
    return lines[start:end]


def daemons() -> list[str]:
    """Return the daemons that have a section, in order."""
    return [match[1] for line in DOCUMENT.read_text().splitlines() if (match := DAEMON.fullmatch(line))]


def entries() -> list[Entry]:
    """Return every variable of every daemon."""
    return [entry for daemon in daemons() for entry in _entries(daemon)]


def _entries(daemon: str) -> Iterator[Entry]:
    entry, in_code = None, False
    for line in section(f"{daemon} Configuration"):
        if match := ENTRY.fullmatch(line):
            if entry:
                yield entry
            entry = Entry(daemon, match[1])
        elif line.strip() in ("```bash", "```"):
            in_code = not in_code
        elif in_code and entry:
            entry.example_lines.append(line.strip())
        elif (match := FIELD.fullmatch(line)) and entry and match[1] in FIELDS - set(entry.fields):
            entry.fields[match[1]] = match[2] or ""
        elif not BETWEEN_ENTRIES.fullmatch(line) and not (entry and NOTE.fullmatch(line)):
            raise UnknownForm(line)
    if entry:
        yield entry


def set_ups() -> list[SetUp]:
    """Return the complete examples, one for each daemon.

    An example that begins with "# Same as" changes some values of the previous example.
    """
    found: list[SetUp] = []
    for title, block in _blocks():
        if block[0].startswith("# Same as "):
            found += _with_changes(title, found, dict(assignments(block)))
        else:
            found += [SetUp(title, daemon, dict(assignments(lines))) for daemon, lines in _by_daemon(block)]
    return found


def _blocks() -> Iterator[tuple[str, list[str]]]:
    """Yield each code block with the headings above it."""
    headings = ["", ""]
    block: list[str] | None = None
    for line in section("Configuration Examples"):
        if line == "```bash":
            block = []
        elif line == "```":
            yield " / ".join(filter(None, headings)), block or []
            block = None
        elif block is not None:
            block.append(line)
        elif line.startswith("### "):
            headings = [line.removeprefix("### "), ""]
        elif line.startswith("**"):
            headings[1] = line.strip("*:").replace("**", "")
        elif line not in ("", "---"):
            raise UnknownForm(line)


def _by_daemon(block: list[str]) -> list[tuple[str, list[str]]]:
    parts: list[tuple[str, list[str]]] = []
    for line in block:
        if line.startswith("#"):
            [daemon] = [name for name in daemons() if re.match(rf"# {name}\b", line)]
            parts.append((daemon, []))
        elif line:
            parts[-1][1].append(line)
    return parts


def _with_changes(title: str, earlier: list[SetUp], changed: dict[str, str]) -> list[SetUp]:
    """Return the set-ups of the previous block with changed values, each of which must occur in exactly one of them."""
    before = [each for each in earlier if each.title == earlier[-1].title]
    if {name for name in changed if sum(name in each.values for each in before) != 1}:
        raise UnknownForm(str(changed))
    return [
        SetUp(title, each.daemon, {name: changed.get(name, value) for name, value in each.values.items()})
        for each in before
    ]
