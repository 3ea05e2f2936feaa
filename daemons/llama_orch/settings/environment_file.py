"""Parser for environment files, with the same states as systemd's src/basic/env-file.c (version 254 or later)."""

NEWLINE = "\n\r"
BLANK = " \t\n\r"
COMMENTS = "#;"
ESCAPABLE = '"\\`$'


class Reader:
    """State machine over characters. `state` is the name of the method for the next character."""

    def __init__(self) -> None:
        self.state = "before_key"
        self.key = ""
        self.value = ""
        self.blanks_from: int | None = None
        self.found: dict[str, str] = {}
        self.line = 1
        self.key_line = 1
        self.lines: dict[str, int] = {}

    def push(self) -> None:
        value = self.value if self.blanks_from is None else self.value[: self.blanks_from]
        self.found[self.key.rstrip(BLANK)] = value
        self.lines[self.key.rstrip(BLANK)] = self.key_line
        self.state, self.key, self.value, self.blanks_from = "before_key", "", "", None

    def before_key(self, char: str) -> None:
        if char in COMMENTS:
            self.state = "comment"
        elif char not in BLANK:
            self.state, self.key, self.key_line = "in_key", char, self.line

    def in_key(self, char: str) -> None:
        if char in NEWLINE:
            self.state, self.key = "before_key", ""
        elif char == "=":
            self.state = "before_value"
        else:
            self.key += char

    def before_value(self, char: str) -> None:
        if char in NEWLINE:
            self.push()
        elif char == "'":
            self.state = "single"
        elif char == '"':
            self.state = "double"
        elif char == "\\":
            self.state = "escape"
        elif char not in BLANK:
            self.state = "in_value"
            self.value += char

    def in_value(self, char: str) -> None:
        if char in NEWLINE:
            self.push()
            return
        if char == "\\":
            self.state, self.blanks_from = "escape", None
            return
        if char not in BLANK:
            self.blanks_from = None
        elif self.blanks_from is None:
            self.blanks_from = len(self.value)
        self.value += char

    def escape(self, char: str) -> None:
        self.state = "in_value"
        if char not in NEWLINE:
            self.value += char

    def single(self, char: str) -> None:
        if char == "'":
            self.state = "before_value"
        else:
            self.value += char

    def double(self, char: str) -> None:
        if char == '"':
            self.state = "before_value"
        elif char == "\\":
            self.state = "double_escape"
        else:
            self.value += char

    def double_escape(self, char: str) -> None:
        self.state = "double"
        if char in ESCAPABLE:
            self.value += char
        elif char != "\n":
            self.value += "\\" + char

    def comment(self, char: str) -> None:
        if char in NEWLINE:
            self.state = "before_key"


def parse(text: str) -> dict[str, str]:
    """Return the assignments in `text`. The last assignment to a name wins."""
    return _read(text).found


def lines_of(text: str) -> dict[str, int]:
    """Return the line of each assignment that `parse` returns, from 1."""
    return _read(text).lines


def _read(text: str) -> Reader:
    reader = Reader()
    for char in text:
        getattr(reader, reader.state)(char)
        reader.line += char == "\n"
    if reader.state not in ("before_key", "in_key", "comment"):
        reader.push()
    return reader
