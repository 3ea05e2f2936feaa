"""Line numbers of the keys of a TOML document, which `tomllib` does not provide.

This is a scanner for documents that `tomllib` has accepted. It never raises.
"""

import contextlib
import re
from collections.abc import Iterator

from llama_orch.contracts.validation import Location

TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|\#[^\n]*)"
    r"|(?P<newline>\n)"
    r'|(?P<long>"""(?:\\.|(?!""").)*"{3,5}|\'\'\'(?:(?!\'\'\').)*\'{3,5})'
    r'|(?P<string>"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')'
    r"|(?P<mark>[\[\]{}=,.])"
    r"|(?P<bare>[^\s\[\]{}=,.\"'#]+)",
    re.DOTALL,
)
Token = tuple[str, str, int]


def locate(text: str) -> dict[Location, int]:
    """Return the line, from 1, of each table, key and array element in `text`."""
    scanner = _Scanner(list(_tokens(text)))
    with contextlib.suppress(IndexError, RecursionError):  # at an unexpected end of the document
        scanner.document()
    return scanner.lines


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for match in TOKEN.finditer(text):
        kind, value = str(match.lastgroup), match.group()
        if kind != "space":
            yield kind, value, line
        line += value.count("\n")


class _Scanner:
    def __init__(self, tokens: list[Token]) -> None:
        self.lines: dict[Location, int] = {}
        self._tokens = tokens
        self._position = 0
        self._arrays: dict[Location, int] = {}

    def document(self) -> None:
        table: Location = ()
        while self._position < len(self._tokens):
            kind, value, _line = self._tokens[self._position]
            if kind == "newline":
                self._position += 1
            elif value == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Location:
        line = self._tokens[self._position][2]
        array = self._tokens[self._position + 1][1] == "["
        self._position += 2 if array else 1
        keys = self._keys()
        self._position += 2 if array else 1
        path: Location = ()
        for index, key in enumerate(keys):
            path = (*path, key)
            if array and index == len(keys) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
                self.lines.setdefault(path, line)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        self.lines.setdefault(path, line)
        return path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            kind, value, _line = self._tokens[self._position]
            keys.append(_unquoted(kind, value))
            self._position += 1
            if self._tokens[self._position][1] != ".":
                return keys
            self._position += 1

    def _pair(self, table: Location) -> None:
        line = self._tokens[self._position][2]
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._position += 1  # the equals sign
        self._value(path)

    def _value(self, path: Location) -> None:
        kind, value, _line = self._tokens[self._position]
        if kind == "mark" and value == "{":
            self._inline(path)
        elif kind == "mark" and value == "[":
            self._array(path)
        else:
            while self._tokens[self._position][0] != "newline" and self._tokens[self._position][1] not in ",]}":
                self._position += 1

    def _inline(self, path: Location) -> None:
        self._position += 1
        while self._tokens[self._position][1] != "}":
            if self._tokens[self._position][1] in (",", "\n"):
                self._position += 1
            else:
                self._pair(path)
        self._position += 1

    def _array(self, path: Location) -> None:
        self._position += 1
        index = 0
        while self._tokens[self._position][1] != "]":
            if self._tokens[self._position][1] in (",", "\n"):
                self._position += 1
            else:
                self.lines.setdefault((*path, index), self._tokens[self._position][2])
                self._value((*path, index))
                index += 1
        self._position += 1


def _unquoted(kind: str, value: str) -> str:
    return value[1:-1] if kind == "string" else value
