"""The documents that viewers follow, by section and key, and what each viewer has not seen yet. No I/O, no clock."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Documents = Mapping[str, str]
"""JSON objects in one line, by key."""


@dataclass(frozen=True)
class Change:
    """What has changed in a section; `documents` are those that are new or different."""

    section: str
    documents: Documents
    gone: tuple[str, ...] = ()


@dataclass
class Seen:
    """What one viewer has seen: the revision of each document, and of each section as a whole."""

    documents: dict[str, dict[str, int]] = field(default_factory=dict)
    sections: dict[str, int] = field(default_factory=dict)


class Board:
    """Each document has the revision at which it changed last. A viewer that lags behind misses intermediate states."""

    def __init__(self) -> None:
        self._revision = 0
        self._changed: dict[str, int] = {}
        self._sections: dict[str, dict[str, tuple[int, str]]] = {}

    def put(self, section: str, documents: Documents) -> None:
        """Replace the documents of `section`."""
        before = self._sections.get(section)
        if before is not None and documents == {key: text for key, (_revision, text) in before.items()}:
            return
        self._revision += 1
        self._changed[section] = self._revision
        known = before or {}
        self._sections[section] = {
            key: known[key] if key in known and known[key][1] == text else (self._revision, text)
            for key, text in documents.items()
        }

    def changes(self, seen: Seen) -> Iterator[Change]:
        """Yield what `seen` lacks, and record it there: at first every section, also an empty one."""
        for section, revision in self._changed.items():
            if seen.sections.get(section) != revision:
                seen.sections[section] = revision
                yield self._change(section, seen.documents.setdefault(section, {}))

    def _change(self, section: str, seen: dict[str, int]) -> Change:
        current = self._sections[section]
        gone = tuple(key for key in seen if key not in current)
        for key in gone:
            del seen[key]
        changed = {key: text for key, (revision, text) in current.items() if seen.get(key) != revision}
        seen.update({key: current[key][0] for key in changed})
        return Change(section, changed, gone)
