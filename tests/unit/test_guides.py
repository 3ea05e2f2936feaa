"""README.md, CONTRIBUTING.md and CHANGELOG.md match the code."""

import re
import tomllib
from pathlib import Path

import pytest

from engine_provisioner.spec import pools_file
from tests.bench.first_minutes import PLACEHOLDER, commands

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
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        first or second for first, second in re.findall(r"^make ([a-z0-9-]+)|`make ([a-z0-9-]+)", text, re.MULTILINE)
    }
    assert named <= targets


def test_first_answer_takes_two_commands_and_no_edited_file() -> None:
    install, run = commands()
    assert install == "apt install ./dist/llama-orch_*.deb"
    assert run.startswith(f"orchctl run --devices cpu {PLACEHOLDER} ")


def test_contributing_is_short_and_stands_alone() -> None:
    assert len(CONTRIBUTING.encode()) <= 10_000
    modules = re.findall(r"python -m ((?:tests|tools)[\w.]*)", CONTRIBUTING)
    assert modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_links_point_to_existing_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README + CONTRIBUTING)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_changelog_has_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {version} (" in CHANGELOG
