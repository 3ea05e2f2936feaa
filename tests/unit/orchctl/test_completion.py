"""Bash completion: commands, options and values, as generated from the declarations."""

import argparse
import subprocess
from pathlib import Path

from orchctl.client import QueenClient
from orchctl.command import Argument, CliCommand, argument
from orchctl.parser import COMMANDS, build_parser
from tests.unit.orchctl.running import run
from tools.generating.completion import completion_script

INSTALLED = Path(__file__).parents[3] / "packaging/completions/orchctl"


def completions(*words: str, script: Path = INSTALLED) -> set[str]:
    """Return what bash offers for the last of `words`."""
    commands = '. "$0"; COMP_WORDS=(orchctl "$@"); COMP_CWORD=$#; _orchctl; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", commands, str(script), *words]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    choices = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: command for each in choices for name, command in each.items()}


def test_bash_completes_every_command_option_and_choice() -> None:
    parser = build_parser()
    assert completions("") == {*subcommands(parser), "--version", "--help"}
    for name, command in subcommands(parser).items():
        assert_completes(command, name)


def assert_completes(parser: argparse.ArgumentParser, *words: str) -> None:
    options = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    assert completions(*words, "-") == completions(*words, "--json", "-") == options
    for action in parser._actions:
        if action.option_strings and action.choices:
            assert completions(*words, action.option_strings[0], "") == set(action.choices)
    for name, command in subcommands(parser).items():
        assert name in completions(*words, "") & completions(*words, "--url", "http://x", "")
        assert_completes(command, *words, name)


def test_values_are_completed_from_the_queen(tmp_path: Path) -> None:
    (tmp_path / "orchctl").write_text('#!/bin/sh\necho "$*" >&2\necho \'{"node_id":"gpu-2"},{"node_id":"gpu-1"}\'\n')
    (tmp_path / "orchctl").chmod(0o755)
    script = tmp_path / "completion"
    script.write_text(f"PATH={tmp_path}:$PATH\n{INSTALLED.read_text()}")
    assert completions("drain", "--node", "", script=script) == {"gpu-1", "gpu-2"}
    assert completions("nodes", "", script=script) == {"remove", "wake", "gpu-1", "gpu-2"}


def test_file_arguments_complete_file_names(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    for words in (("catalog", "add", "--digest-of"), ("artifacts", "put")):
        assert completions(*words, f"{tmp_path}/mod") == {f"{tmp_path}/model.gguf"}


async def never_run(options: argparse.Namespace, queen: QueenClient) -> None:
    raise AssertionError


COLOUR: Argument = argument("--colour", choices=["red", "blue"], help="colour to use")
NEW_COMMAND = CliCommand("paint", "paint a pool", never_run, [COLOUR], [CliCommand("undo", "undo it", never_run)])


def test_new_command_is_in_help_and_completion(tmp_path: Path) -> None:
    commands = (*COMMANDS, NEW_COMMAND)
    parser = build_parser(commands)
    assert "paint a pool" in parser.format_help()
    assert parser.parse_args(["paint", "--colour", "red"]).run is never_run
    script = tmp_path / "completion"
    script.write_text(completion_script(commands))
    assert "paint" in completions("pa", script=script)
    assert completions("paint", "--c", script=script) == {"--colour"}
    assert completions("paint", "--colour", "", script=script) == {"red", "blue"}
    assert completions("paint", "", script=script) == {"undo"}


def test_help_of_every_command_names_its_subcommands() -> None:
    for command in COMMANDS:
        text = run(command.name, "--help").out
        assert all(each.name in text for each in command.subcommands)
