"""The command line: common options, options before and after subcommands, help."""

import argparse
import inspect
from collections.abc import Iterator

import pytest

from llama_orch import VERSION
from orchctl.parser import build_parser
from tests.unit.orchctl.running import run


def every_command(
    top: argparse.ArgumentParser, *before: str
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield the words and the parser of each command and subcommand."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield (*before, name), command
                yield from every_command(command, *before, name)


COMMANDS = dict(every_command(build_parser()))
EVERY_COMMAND = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
NEEDS: dict[tuple[str, ...], list[str]] = {
    **{(name,): ["x"] for name in ("run", "serve", "load", "unload", "reload", "purge")},
    **{("pool", name): ["x"] for name in ("rm", "show")},
    ("pool", "add"): ["x", "--model", "y"],
    **{("key", name): ["x"] for name in ("add", "revoke")},
    ("submit",): ["x"],
    ("cancel",): ["x"],
    **{("batch", name): ["x"] for name in ("submit", "fetch", "cancel")},
    **{(name,): ["x"] for name in ("pull", "rm", "pin", "unpin", "logs", "bench")},
    ("catalog", "add"): ["x", "y"],
    ("artifacts", "put"): ["-"],
    ("artifacts", "show"): ["x"],
    ("gpus", "unfence"): ["x"],
    **{("catalog", name): ["x"] for name in ("show", "remove", "retire", "activate", "verify")},
}


@EVERY_COMMAND
def test_command_has_common_options_and_coroutine(words: tuple[str, ...]) -> None:
    plain = build_parser().parse_args([*words, *NEEDS.get(words, [])])
    options = build_parser().parse_args([*words, "--url", "http://q", "--json", *NEEDS.get(words, [])])
    assert (plain.url, plain.json, options.url, options.json) == (None, False, "http://q", True)
    assert inspect.iscoroutinefunction(options.run)
    assert list(inspect.signature(options.run).parameters) == ["options", "queen"]


@pytest.mark.parametrize("words", [words for words in COMMANDS if len(words) > 1], ids=" ".join)
def test_options_before_subcommand_count_and_last_wins(words: tuple[str, ...]) -> None:
    outer, inner = words
    more = [inner, *NEEDS.get(words, [])]
    assert build_parser().parse_args([outer, "--url", "http://a", "--json", *more]).url == "http://a"
    assert build_parser().parse_args([outer, "--json", *more]).json is True
    assert build_parser().parse_args([outer, "--url", "http://a", *more, "--url", "http://b"]).url == "http://b"


@EVERY_COMMAND
def test_common_options_may_precede_command(words: tuple[str, ...]) -> None:
    more = [*words, *NEEDS.get(words, [])]
    options = build_parser().parse_args(["--url", "http://a", "--json", *more])
    assert (options.url, options.json) == ("http://a", True)
    assert build_parser().parse_args(["--url", "http://a", *more, "--url", "http://b"]).url == "http://b"


@pytest.mark.parametrize(
    "words",
    [("m", "--ctx", "512", "the river"), ("m", "the river", "--ctx", "512"), ("--ctx", "512", "m", "the river")],
)
def test_options_may_be_between_model_and_prompt(words: tuple[str, ...]) -> None:
    options = build_parser().parse_args(["run", *words])
    assert (options.model, options.prompt, options.ctx) == ("m", "the river", 512)
    assert build_parser().parse_args(["run", "m", "--ctx", "512"]).prompt is None


@EVERY_COMMAND
def test_help_has_usage_and_no_none_defaults(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"usage: orchctl {' '.join(words)} ")
    assert "(default: None)" not in result.out


def test_help_lists_every_command() -> None:
    first_words = {line.split()[0] for line in run("--help").out.splitlines() if line.strip()}
    for words, command in COMMANDS.items():
        if len(words) == 1:
            assert command.description
            assert words[0] in first_words


@pytest.mark.parametrize("arguments", [(), ("fly",), ("submit", "--engine", "gpt"), ("submit", "--max-tokens", "many")])
def test_wrong_command_line_exits_64(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.status == 64
    assert result.err.startswith("usage: orchctl")


def test_version_and_help() -> None:
    assert run("--version").out == f"orchctl (llama-orch) {VERSION}\n"
    assert all(word in run("--help").out for word in ("status", "pools", "submit"))
