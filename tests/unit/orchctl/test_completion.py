"""Completion: words from the declarations, ids from the queen, and the scripts in real shells."""

import argparse
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from orchctl.client import QueenClient
from orchctl.command import Argument, CliCommand, ListedValues, argument
from orchctl.completion import Candidate, Wanted, query_ids, split_line, wanted_after
from orchctl.index import INDEX
from orchctl.lists import LIST_ARGUMENTS
from orchctl.parser import COMMANDS, build_parser
from tests.engines.fixtures import skip_or_fail
from tests.unit.orchctl.commands.test_tasks import QUEUED, page
from tests.unit.orchctl.running import LIMIT_S, environment, run
from tests.unit.orchctl.scripted_queen import MODEL, TASK_ID, reply, serve

SCRIPTS = Path(__file__).parents[3] / "packaging/completions"


def known(*words: str, commands: Sequence[CliCommand] = COMMANDS) -> set[str]:
    """Return the known words for the last of `words`, without those that start otherwise."""
    *before, current = words
    return {each.text for each in wanted_after(before, current, commands).known if each.text.startswith(current)}


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    choices = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: command for each in choices for name, command in each.items()}


def test_every_command_option_and_choice_is_completed() -> None:
    parser = build_parser()
    assert known("") == {*subcommands(parser)}
    assert known("-") == {"--url", "--json", "--version", "--help"}
    for name, command in subcommands(parser).items():
        assert_completes(command, name)


def assert_completes(parser: argparse.ArgumentParser, *words: str) -> None:
    options = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    assert known(*words, "-") == known(*words, "--json", "-") == options
    for action in parser._actions:
        if action.option_strings and action.choices:
            assert known(*words, action.option_strings[0], "") == set(action.choices)
    for name, command in subcommands(parser).items():
        assert name in known(*words, "") & known(*words, "--url", "http://x", "")
        assert_completes(command, *words, name)


def test_index_completes_like_all_commands() -> None:
    for words in ([""], ["catalog", ""], ["submit", "-"], ["tasks", "--state", ""]):
        *before, current = words
        assert wanted_after(before, current, INDEX) == wanted_after(before, current, COMMANDS)


def test_watch_takes_no_value_from_next_word() -> None:
    assert wanted_after(["tasks", "--watch"], "", COMMANDS).listed == "tasks"


def test_each_position_has_its_own_values() -> None:
    assert wanted_after(["run"], "", COMMANDS).listed == "models"
    assert wanted_after(["run", "m"], "", COMMANDS) == Wanted([])
    assert wanted_after(["cancel", "a", "b"], "", COMMANDS).listed == "tasks"
    assert wanted_after(["artifacts", "put"], "", COMMANDS).files
    assert wanted_after(["catalog", "add", "--digest-of"], "", COMMANDS).files
    assert wanted_after(["catalog", "add", "new"], "", COMMANDS) == Wanted([])


def listed_values(commands: Sequence[CliCommand]) -> Iterator[ListedValues]:
    for command in commands:
        yield from (each.completion for each in command.arguments if isinstance(each.completion, ListedValues))
        yield from listed_values(command.subcommands)


def test_ids_come_from_commands_that_print_names() -> None:
    commands = {each.name: each for each in COMMANDS}
    commands |= {f"{each.name} {inner.name}": inner for each in COMMANDS for inner in each.subcommands}
    for values in listed_values(COMMANDS):
        command = commands[values.command.partition(" -")[0]]
        assert all(each in command.arguments for each in LIST_ARGUMENTS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("orchctl ", [""]),
        ("orchctl", [""]),
        ("orchctl po", ["po"]),
        ("orchctl rm hf:ORG/R", ["rm", "hf:ORG/R"]),
        ("orchctl rm 'a b", ["rm", "a b"]),
        ('orchctl rm "a ', ["rm", "a "]),
        ("orchctl rm a\\ b ", ["rm", "a b", ""]),
        ('orchctl rm "a\\', [""]),
    ],
)
def test_line_is_split_like_a_shell_does(line: str, words: list[str]) -> None:
    assert split_line(line) == words


def test_ids_are_printed_after_known_words() -> None:
    with serve({"GET /v2/tasks": [page(QUEUED)]}) as queen:
        assert run("__complete", "--url", queen.url, "cancel", "").out == f"{TASK_ID}\n"
        assert run("__complete", "--line", f"orchctl --url {queen.url} cancel {str(TASK_ID)[:4]}").out == f"{TASK_ID}\n"
        assert run("__complete", "--url", queen.url, "cancel", "other").out == ""


def test_values_are_silent_without_queen() -> None:
    result = run("__complete", "--url", "http://127.0.0.1:9", "cancel", "")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert run("__complete", "--url", "http://127.0.0.1:9", "nodes", "").out == "remove\nwake\n"


async def test_silent_queen_is_given_up_within_a_second(autojump_clock: trio.testing.MockClock) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        began = trio.current_time()
        assert await query_ids("tasks", f"http://127.0.0.1:{listener.getsockname()[1]}") == []
        assert trio.current_time() - began < 1


def test_packages_install_the_scripts_of_every_shell(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    root = SCRIPTS.parent.parent
    subprocess.run(["sh", "packaging/install.sh", tmp_path / "root", tmp_path / "site", "3.11"], cwd=root, check=True)
    share = tmp_path / "root/usr/share"
    for path, shell in (
        ("bash-completion/completions/orchctl", "bash"),
        ("fish/vendor_completions.d/orchctl.fish", "fish"),
    ):
        assert (share / path).read_bytes() == (SCRIPTS / shell / Path(path).name).read_bytes()
    # their own tools install that of zsh, into what zsh searches there
    for recipe, directory in (
        ("debian/rules", "/zsh/vendor-completions"),
        ("rpm/llama-orch.spec", "/zsh/site-functions"),
    ):
        assert f"{directory} packaging/completions/zsh/_orchctl" in (SCRIPTS.parent / recipe).read_text()


def test_candidates_have_help() -> None:
    assert "ps\tshow the models that are in memory, and when they are unloaded\n" in run("__complete", "p").out


async def never_run(options: argparse.Namespace, queen: QueenClient) -> None:
    raise AssertionError


COLOUR: Argument = argument("--colour", choices=["red", "blue"], help="colour to use")
NEW_COMMAND = CliCommand("paint", "paint a pool", never_run, [COLOUR], [CliCommand("undo", "undo it", never_run)])


def test_new_command_is_in_help_and_completion() -> None:
    commands = (*COMMANDS, NEW_COMMAND)
    parser = build_parser(commands)
    assert "paint a pool" in parser.format_help()
    assert parser.parse_args(["paint", "--colour", "red"]).run is never_run
    assert Candidate("paint", "paint a pool") in wanted_after([], "pa", commands).known
    assert known("paint", "--c", commands=commands) == {"--colour"}
    assert known("paint", "--colour", "", commands=commands) == {"red", "blue"}
    assert known("paint", "", commands=commands) == {"undo"}


def test_help_of_every_command_names_its_subcommands() -> None:
    for command in COMMANDS:
        text = run(command.name, "--help").out
        assert all(each.name in text for each in command.subcommands)


BASH = """
. {scripts}/bash/orchctl
COMP_LINE=$1 COMP_POINT=${{#1}} COMP_WORDS=($1) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
[[ $1 == *' ' ]] && COMP_WORDS+=('') && COMP_CWORD=$((COMP_CWORD + 1))
_orchctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = "source {scripts}/fish/orchctl.fish; complete -C $argv[1]"
ZSHRC = f"""
fpath=({SCRIPTS}/zsh $fpath)
autoload -Uz compinit
compinit -u -D
PS1='> '
"""


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `orchctl` is that of this tree."""
    script = tmp_path / "bin/orchctl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchctl "$@"\n')
    script.chmod(0o755)
    given = environment(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / "config"))
    return {**given, "PATH": f"{script.parent}:{given['PATH']}"}


def in_shell(shell: str, script: str, line: str, environ: dict[str, str]) -> list[str]:
    """Return what the shell offers for `line`."""
    if not shutil.which(shell):
        skip_or_fail(f"{shell} is not installed (apt install {shell})")
    command = [shell, "-c", script.format(scripts=SCRIPTS), *([shell] if shell == "bash" else []), line]
    done = subprocess.run(
        command, env=environ, cwd=environ["HOME"], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(("shell", "script"), [("bash", BASH), ("fish", FISH)])
def test_script_offers_words_ids_and_files(shell: str, script: str, on_path: dict[str, str]) -> None:
    def offered(line: str) -> list[str]:
        return [each.partition("\t")[0] for each in in_shell(shell, script, line, on_path)]

    assert {*offered("orchctl po")} == {"pool", "pools"}
    assert {*offered("orchctl catalog a")} == {"activate", "add", "availability"}
    (Path(on_path["HOME"]) / "model.gguf").touch()
    assert offered("orchctl artifacts put mod") == ["model.gguf"]
    with serve({"GET /v2/tasks": [page(QUEUED)]}) as queen:
        on_path["ORCHESTRATORD_URL"] = queen.url
        assert offered("orchctl cancel ") == [str(TASK_ID)]
    assert [each for each in offered("orchctl cancel ") if each] == []


def test_bash_completes_words_with_colons(on_path: dict[str, str]) -> None:
    models = {"object": "list", "data": [{**MODEL, "id": "hf:org/a", "ready": True}]}
    with serve({"GET /v1/models": [reply(200, models)]}) as queen:
        on_path["ORCHESTRATORD_URL"] = queen.url
        assert in_shell("bash", BASH, "orchctl run hf:or", on_path) == ["org/a"]


def test_zsh_inserts_only_candidate_and_lists_several(on_path: dict[str, str], tmp_path: Path) -> None:
    """zsh completes only at a prompt, so it gets a terminal, and keys."""
    if not shutil.which("zsh"):
        skip_or_fail("zsh is not installed (apt install zsh)")
    (tmp_path / ".zshrc").write_text(ZSHRC)
    master, slave = pty.openpty()
    given = {**on_path, "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    with subprocess.Popen(["setsid", "--ctty", "zsh", "-i"], stdin=slave, stdout=slave, stderr=slave, env=given) as zsh:
        os.close(slave)
        try:
            read_until(master, b"> ")
            os.write(master, b"orchctl capab\t")
            read_until(master, b"capabilities")
            os.write(master, b"\x15orchctl catalog \t")
            read_until(master, b"refuse new tasks for a model")
        finally:
            zsh.kill()
            os.close(master)


def read_until(master: int, text: bytes) -> None:
    deadline, read = time.monotonic() + LIMIT_S, b""
    while text not in read:
        assert time.monotonic() < deadline, read
        if select.select([master], [], [], 1.0)[0]:
            read += os.read(master, 4096)
