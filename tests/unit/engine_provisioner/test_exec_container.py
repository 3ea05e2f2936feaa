"""Removing what is left of a container: without a word, unless it remains."""

import subprocess
from types import SimpleNamespace

import pytest

from engine_provisioner import exec_container
from engine_provisioner.containers import Container

CONTAINER = Container("podman", "localhost/x", "", None, (), (), {})
CONMON = "Error: cannot remove container x as it could not be stopped: conmon exited prematurely"


@pytest.mark.parametrize(
    ("answers", "status", "said"),
    [
        ([(0, "")], 0, ""),
        ([(1, "Error: No such container: llama-engine-a")], 0, ""),
        ([(125, CONMON), (0, "")], 0, ""),
        ([(125, CONMON), (125, CONMON)], exec_container.UNAVAILABLE, f"{CONMON}\n"),
    ],
)
def test_container_is_removed_also_after_a_kill_of_its_monitor(
    answers: list[tuple[int, str]],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(command: list[str], **_keywords: object) -> SimpleNamespace:
        assert command == ["podman", "rm", "--force", "llama-engine-a"]
        returncode, stderr = answers.pop(0)
        return SimpleNamespace(returncode=returncode, stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit) as ended:
        exec_container._remove("a", CONTAINER)
    assert (ended.value.code, capsys.readouterr().err, answers) == (status, said, [])
