"""The index of commands: help without imports, and each command imported when it is used."""

import pytest

from orchctl.command_line import command_line
from orchctl.index import INDEX
from orchctl.parser import COMMANDS, build_parser
from tests.unit.orchctl.test_parser import every_command
from tools.generating.command_index import command_index, declaration


def test_index_has_every_command_with_its_help() -> None:
    assert [(entry.name, entry.help, entry.load()) for entry in INDEX] == [
        (each.name, each.help, each) for each in COMMANDS
    ]


def test_help_is_that_of_all_commands_together() -> None:
    assert command_line(INDEX).format_help() == build_parser().format_help()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_indexed_command_has_its_own_help(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    name = command.name  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        command_line(INDEX).parse_args([name, "--help"])
    assert capsys.readouterr().out == dict(every_command(build_parser()))[(name,)].format_help()


def test_command_that_is_no_global_cannot_be_indexed() -> None:
    from dataclasses import replace

    with pytest.raises(LookupError, match="ps: no global of orchctl"):
        declaration(replace(next(each for each in COMMANDS if each.name == "ps")))


def test_long_entry_is_wrapped() -> None:
    assert max(map(len, command_index(COMMANDS).splitlines())) <= 120
