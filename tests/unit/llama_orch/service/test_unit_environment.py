"""Commands in a shell see the environment of the installed unit: Environment=, EnvironmentFile= and credentials."""

import sys
from pathlib import Path

import pytest

from llama_orch.service import unit_environment

SHOWN = """\
ExecStart={{ path={program} ; argv[]={program} -I -m engine_provisioner ; pid=0 }}
Environment=A=unit B=unit "C=with a space"
EnvironmentFiles={file} (ignore_errors=yes)
EnvironmentFiles=/nonexistent.env (ignore_errors=yes)
"""


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment file of a unit that runs this interpreter, as systemctl shows it."""
    return installed(tmp_path, monkeypatch, sys.executable)


def installed(directory: Path, patch: pytest.MonkeyPatch, program: str) -> Path:
    file = directory / "daemon.env"
    file.write_text("B=file\nE='quoted; text'\n; comment\n")
    systemctl = directory / "systemctl"
    systemctl.write_text(f"#!/bin/sh\ncat <<'END'\n{SHOWN.format(program=program, file=file)}END\n")
    systemctl.chmod(0o755)
    patch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return file


@pytest.mark.usefixtures("unit")
def test_files_override_the_unit_and_the_shell_both() -> None:
    environ = {"A": "shell", "D": "shell"}
    unit_environment.adopt("engine-provisioner", environ)
    assert environ == {
        "A": "shell",
        "B": "file",
        "C": "with a space",
        "D": "shell",
        "E": "quoted; text",
        "CREDENTIALS_DIRECTORY": "/etc/llama-orch",
    }


def test_unit_of_another_installation_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "/usr/lib/llama-orch/bin/python3")
    environ: dict[str, str] = {}
    unit_environment.adopt("engine-provisioner", environ)
    assert environ == {}


def test_unreadable_file_is_reported(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit.unlink()
    unit.mkdir()
    environ: dict[str, str] = {}
    unit_environment.adopt("engine-provisioner", environ)
    assert environ["B"] == "unit"
    assert f"{unit} cannot be read" in capsys.readouterr().err


def test_machine_without_systemd_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    environ: dict[str, str] = {}
    unit_environment.adopt("engine-provisioner", environ)
    assert environ == {}
