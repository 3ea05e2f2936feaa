"""Containers that run as root: what a launch file may ask for, and the command that it comes to."""

import json
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine_provisioner.containers import (
    Identity,
    check_container,
    facts_of,
    name_of,
    run_command,
    write_env_file,
)
from engine_provisioner.engine import ContainerRun, EngineCommand
from engine_provisioner.exec_engine import LaunchFileError

IMAGE_ID = "a" * 64
IDENTITY = Identity(990, 991, (44, 991, 993))


def document(**changes: Any) -> dict[str, Any]:
    """Return a launch file as the launcher writes it; `changes` replace keys of its table `container`."""
    wanted = ContainerRun("podman", "ghcr.io/x/llama.cpp:server", IMAGE_ID, "/srv/models", (0, 1))
    command = EngineCommand(("-m", "/models/m.gguf", "--port", "18080"), {"HF_TOKEN": "geheim"}, wanted)
    content: dict[str, Any] = json.loads(command.document())
    content["container"] |= changes
    return content


def command(*, unit: bool = True, identity: Identity | None = IDENTITY, **changes: Any) -> list[str]:
    return run_command("default", check_container(document(**changes)), identity, "/run/env", unit=unit)


def test_container_is_confined_and_on_loopback_only() -> None:
    words = command()
    for option in ("--cap-drop=all", "--security-opt=no-new-privileges", "--read-only", "--pull=never"):
        assert option in words
    assert "--network=host" in words, "the engine's --host is 127.0.0.1"
    assert not [word for word in words if word.startswith(("--publish", "-p", "--privileged"))]


def test_container_belongs_to_its_unit() -> None:
    words = command()
    assert words[:2] == ["podman", "run"]
    for option in ("--cgroups=disabled", "--sdnotify=conmon", "--detach", "--rm", "--replace"):
        assert option in words
    assert f"--name={name_of('default')}" in words


def test_engine_has_user_and_groups_of_native_engines() -> None:
    words = command()
    assert "--user=990:991" in words
    assert [word for word in words if word.startswith("--group-add")] == ["--group-add=44", "--group-add=993"]


def test_models_are_mounted_read_only_and_nothing_else() -> None:
    assert [word for word in command() if word.startswith("--volume")] == ["--volume=/srv/models:/models:ro"]
    assert not [word for word in command(models=None) if word.startswith("--volume")]


def test_devices_are_passed_by_cdi() -> None:
    assert [word for word in command() if word.startswith("--device")] == [
        "--device=nvidia.com/gpu=0",
        "--device=nvidia.com/gpu=1",
    ]
    assert not [word for word in command(devices=[]) if word.startswith("--device")]


def test_arguments_follow_the_image() -> None:
    words = command()
    assert words[-5:] == [IMAGE_ID, "-m", "/models/m.gguf", "--port", "18080"]


def test_variables_are_in_a_file_and_not_on_the_command_line(tmp_path: Path) -> None:
    assert "geheim" not in " ".join(command())
    path = Path(write_env_file(str(tmp_path / "env"), {"HF_TOKEN": "geheim", "A": "b c"}))
    assert path.read_text() == "A=b c\nHF_TOKEN=geheim\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_docker_gets_no_options_of_podman() -> None:
    words = command(runtime="docker")
    assert words[:2] == ["docker", "run"]
    assert not [word for word in words if word.startswith(("--replace", "--cgroups", "--sdnotify", "--ulimit=host"))]
    assert '--gpus="device=0,1"' in words


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"runtime": "/bin/sh"}, "runtime must be one of"),
        ({"image": "--privileged"}, "image or image_id is invalid"),
        ({"image": "docker-archive:/root/x.tar"}, "image or image_id is invalid"),
        ({"image": "dir:/etc"}, "image or image_id is invalid"),
        ({"image_id": "--privileged"}, "image or image_id is invalid"),
        ({"models": "/etc:/models:rw,exec"}, "models must be an absolute path"),
        ({"models": "/srv/../etc"}, "models must be an absolute path"),
        ({"models": "relative"}, "models must be an absolute path"),
        ({"devices": ["all"]}, "devices must be a list of indices"),
        ({"devices": [True]}, "devices must be a list of indices"),
        ({"privileged": True}, "container must be an object with the keys"),
    ],
)
def test_launch_file_cannot_widen_the_confinement(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(LaunchFileError, match=problem):
        check_container(document(**changes))


@pytest.mark.parametrize("env", [{"A\nB": "x"}, {"A": "x\nLD_PRELOAD=y"}, {"A=B": "x"}, {"A": 1}])
def test_variables_cannot_smuggle_others(env: dict[str, Any]) -> None:
    with pytest.raises(LaunchFileError, match="env must be"):
        check_container({**document(), "env": env})


def test_launch_file_of_native_engine_is_refused() -> None:
    native = json.loads(EngineCommand(("/bin/sh",), {}).document())
    with pytest.raises(LaunchFileError, match="keys argv, env and container"):
        check_container(native)


@pytest.mark.parametrize(("answers", "there"), [([-9, 0], True), ([-9, 125], False), ([125], False)])
def test_killed_runtime_does_not_make_an_image_absent(
    answers: list[int], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = json.dumps([{"Id": IMAGE_ID, "RepoDigests": []}])
    known = {"image_id": IMAGE_ID, "help": "options"}
    monkeypatch.setattr(
        subprocess, "run", lambda *_words, **_keys: SimpleNamespace(returncode=answers.pop(0), stdout=about)
    )
    assert facts_of("podman", "localhost/x", (), None, known) == (known if there else None)
    assert answers == []
