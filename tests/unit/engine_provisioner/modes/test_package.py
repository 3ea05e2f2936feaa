"""Private installs by pip are complete or absent, and a failure quotes pip's output."""

import importlib.util
import sys
from pathlib import Path

import pytest

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.modes import pip
from engine_provisioner.modes.package import find_distribution_engine, install_with_pip
from llama_orch import packages

VERSION = "2026.1.1"
FAKE_PIP = """
import os, pathlib, sys
target = pathlib.Path(sys.argv[sys.argv.index("--target") + 1], "xllamacpp")
target.mkdir(parents=True)
(target / "__init__.py").write_text(sys.argv[-1])
os.chmod(target / "__init__.py", 0o600)
"""


def use(monkeypatch: pytest.MonkeyPatch, directory: Path, program: str) -> None:
    """Replace pip by `program`."""
    script = directory / "pip.py"
    script.write_text(program)
    monkeypatch.setattr(pip, "command", lambda: [sys.executable, str(script)])


async def test_pinned_version_is_installed_once_and_group_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, tmp_path, FAKE_PIP)
    program = await install_with_pip(VERSION, tmp_path / "cache")
    assert program.file.read_text() == "xllamacpp==2026.1.1"
    assert [path.stat().st_mode & 0o777 for path in (program.file, program.file.parent)] == [0o640, 0o750]
    use(monkeypatch, tmp_path, "raise SystemExit('installed twice')")
    assert await install_with_pip(VERSION, tmp_path / "cache") == program


async def test_failed_install_leaves_no_files_and_quotes_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, tmp_path, FAKE_PIP + "sys.exit('WARNING: slow\\nERROR: No matching distribution found\\nnotice')")
    with pytest.raises(ProvisioningFailure, match=r"pip cannot install xllamacpp==2026\.1\.1: No matching"):
        await install_with_pip(VERSION, tmp_path / "cache")
    assert not list((tmp_path / "cache/engines").iterdir())


def test_wheel_of_python3_venv_is_used_without_own_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(pip, "WHEELS", tmp_path)
    with pytest.raises(ProvisioningFailure, match="has no pip"):
        pip.command()
    (tmp_path / "pip-23.0.1-py3-none-any.whl").touch()
    assert pip.command() == [sys.executable, str(tmp_path / "pip-23.0.1-py3-none-any.whl/pip")]


@pytest.mark.parametrize(
    ("id_", "command"), [("debian", "apt install python3-venv"), ("fedora", "dnf install python3")]
)
def test_missing_pip_names_package_of_distribution(monkeypatch: pytest.MonkeyPatch, id_: str, command: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(pip, "WHEELS", Path("/nonexistent"))
    monkeypatch.setattr(packages, "os_release", lambda: {"ID": id_})
    with pytest.raises(ProvisioningFailure) as failed:
        pip.command()
    assert command in failed.value.hint


@pytest.mark.parametrize(("id_", "package"), [("ubuntu", "apt install llama.cpp"), ("fedora", "dnf install llama-cpp")])
def test_missing_engine_names_package_of_distribution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, id_: str, package: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "os_release", lambda: {"ID": id_})
    with pytest.raises(ProvisioningFailure) as failed:
        find_distribution_engine()
    assert package in failed.value.hint
