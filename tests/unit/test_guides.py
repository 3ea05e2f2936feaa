"""README.md, CONTRIBUTING.md and the shell completion say what is there."""

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


def test_the_pools_files_of_the_readme_are_accepted() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        assert pools_file.parse(example.encode(), Path("README.md"))


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_target_that_is_named_exists(text: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {first or second for first, second in re.findall(r"^make ([a-z]+)|`make ([a-z]+)", text, re.MULTILINE)}
    assert named <= targets


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README + CONTRIBUTING)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_changelog_has_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version} (" in CHANGELOG


def completed(*words: str) -> set[str]:
    """What bash offers for the last of `words`."""
    script = '. "$0"; COMP_WORDS=(orchctl "$@"); COMP_CWORD=$#; _orchctl; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", script, str(ROOT / "packaging/completions/orchctl"), *words]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Those below `parser`."""
    found = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: command for choices in found for name, command in choices.items()}


def test_bash_completes_every_command_and_every_long_option() -> None:
    top = orchctl_parser()
    assert completed("") == {*commands(top), "--version", "--help"}
    for name, command in commands(top).items():
        bash_completes(command, name)


def bash_completes(command: argparse.ArgumentParser, *words: str) -> None:
    """What may follow `words`."""
    options = {option for action in command._actions for option in action.option_strings}
    assert completed(*words, "-") == completed(*words, "--json", "-") == {o for o in options if o.startswith("--")}
    for action in command._actions:
        if action.option_strings and action.choices:
            assert completed(*words, action.option_strings[0], "") == set(action.choices)
    for name, below in commands(command).items():
        assert name in completed(*words, "") & completed(*words, "--url", "http://x", "")
        bash_completes(below, *words, name)
