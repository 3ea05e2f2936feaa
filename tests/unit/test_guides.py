"""README.md, CONTRIBUTING.md, CHANGELOG.md and the shell completion match the code."""

import argparse
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from engine_provisioner.spec import pools_file
from orchctl.run import parser as orchctl_parser

ROOT = Path(__file__).parents[2]
README, CONTRIBUTING, CHANGELOG = (
    (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
)


def test_readme_pools_files_are_valid() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        assert pools_file.parse(example.encode(), Path("README.md"))


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_mentioned_make_targets_exist(text: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {first or second for first, second in re.findall(r"^make ([a-z]+)|`make ([a-z]+)", text, re.MULTILINE)}
    assert named <= targets


def test_links_point_to_existing_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README + CONTRIBUTING)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_changelog_has_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version} (" in CHANGELOG


def completed(*words: str) -> set[str]:
    """The completions that bash offers for the last of `words`."""
    script = '. "$0"; COMP_WORDS=(orchctl "$@"); COMP_CWORD=$#; _orchctl; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", script, str(ROOT / "packaging/completions/orchctl"), *words]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of `parser`."""
    found = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: command for choices in found for name, command in choices.items()}


def test_bash_completes_every_command_and_long_option() -> None:
    top = orchctl_parser()
    assert completed("") == {*commands(top), "--version", "--help"}
    for name, command in commands(top).items():
        check_completion(command, name)


def check_completion(command: argparse.ArgumentParser, *words: str) -> None:
    """Check the completions after `words`."""
    options = {option for action in command._actions for option in action.option_strings}
    assert completed(*words, "-") == completed(*words, "--json", "-") == {o for o in options if o.startswith("--")}
    for action in command._actions:
        if action.option_strings and action.choices:
            assert completed(*words, action.option_strings[0], "") == set(action.choices)
    for name, below in commands(command).items():
        assert name in completed(*words, "") & completed(*words, "--url", "http://x", "")
        check_completion(below, *words, name)
