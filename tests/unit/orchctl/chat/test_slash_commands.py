"""Slash commands of a chat: parsing and help."""

import pytest

from orchctl.chat.slash_commands import SLASH_COMMANDS, SlashCommand, help_text, parse_slash_command
from orchctl.errors import CommandError


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/exit", SlashCommand("exit", None)),
        ("/clear  ", SlashCommand("clear", None)),
        ("/model", SlashCommand("model", None)),
        ("/model  a b ", SlashCommand("model", "a b")),
        ("hello", None),
        (" /exit", None),
        ("/usr/bin is a directory", None),
        ("// a comment", None),
        ("/ 2", None),
        ("/1 and /2", None),
        ("", None),
    ],
)
def test_slash_command_is_slash_and_word_at_line_start(line: str, command: SlashCommand | None) -> None:
    assert parse_slash_command(line) == command


@pytest.mark.parametrize("line", ["/quitt", "/Exit", "/etc", "/etc is a directory"])
def test_unknown_slash_command_is_refused(line: str) -> None:
    with pytest.raises(CommandError, match="unknown command") as caught:
        parse_slash_command(line)
    assert "/help" in caught.value.hint


def test_help_names_every_slash_command() -> None:
    assert all(f"/{name}" in help_text() for name in SLASH_COMMANDS)
