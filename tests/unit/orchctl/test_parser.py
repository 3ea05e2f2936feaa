"""The command line as a whole: every command has its words, its coroutine, and the options that all have."""

import argparse
import inspect
from collections.abc import Iterator

import pytest

from orchctl.run import parser
from tests.unit.orchctl.running import run


def every_command(
    top: argparse.ArgumentParser, *before: str
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """The words of each command and its parser, those below others too."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield (*before, name), command
                yield from every_command(command, *before, name)


COMMANDS = dict(every_command(parser()))
EVERY_COMMAND = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
NEEDS: dict[tuple[str, ...], list[str]] = {
    ("submit",): ["x"],
    ("cancel",): ["x"],
    ("catalog", "add"): ["x", "y"],
    ("artifacts", "put"): ["-"],
    ("artifacts", "show"): ["x"],
    **{("catalog", name): ["x"] for name in ("show", "remove", "retire", "activate", "verify")},
}


@EVERY_COMMAND
def test_a_command_has_what_all_have_and_what_runs_it(words: tuple[str, ...]) -> None:
    plain = parser().parse_args([*words, *NEEDS.get(words, [])])
    options = parser().parse_args([*words, "--url", "http://q", "--json", *NEEDS.get(words, [])])
    assert (plain.url, plain.json, options.url, options.json) == (None, False, "http://q", True)
    assert inspect.iscoroutinefunction(options.run)
    assert list(inspect.signature(options.run).parameters) == ["options", "queen"]


@pytest.mark.parametrize("words", [words for words in COMMANDS if len(words) > 1], ids=" ".join)
def test_what_stands_before_the_inner_command_counts_too_and_what_stands_last_wins(words: tuple[str, ...]) -> None:
    outer, inner = words
    more = [inner, *NEEDS.get(words, [])]
    assert parser().parse_args([outer, "--url", "http://a", "--json", *more]).url == "http://a"
    assert parser().parse_args([outer, "--json", *more]).json is True
    assert parser().parse_args([outer, "--url", "http://a", *more, "--url", "http://b"]).url == "http://b"


@EVERY_COMMAND
def test_common_options_may_stand_before_the_command(words: tuple[str, ...]) -> None:
    more = [*words, *NEEDS.get(words, [])]
    options = parser().parse_args(["--url", "http://a", "--json", *more])
    assert (options.url, options.json) == ("http://a", True)
    assert parser().parse_args(["--url", "http://a", *more, "--url", "http://b"]).url == "http://b"


@EVERY_COMMAND
def test_help_names_the_command_and_every_option_has_words_or_says_itself(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"usage: orchctl {' '.join(words)} ")
    assert "(default: None)" not in result.out


def test_the_first_help_has_a_line_for_each_command() -> None:
    first_words = {line.split()[0] for line in run("--help").out.splitlines() if line.strip()}
    for words, command in COMMANDS.items():
        if len(words) == 1:
            assert command.description
            assert words[0] in first_words
