"""Containers for engines: what may be asked for, the command that it comes to, and facts about images.

Imports only the standard library, because `exec_container` does.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine_provisioner.exec_engine import LaunchFileError

RUNTIMES = ("podman", "docker")
MODELS = "/models"
PROBE_S = 60
TEXT_LIMIT, LINE_LIMIT = 1 << 18, 1000
SHM = "2g"
"""Engines that use several GPUs exchange data through /dev/shm; unused space costs nothing."""

IMAGE = re.compile(r"(?!.*:/)[a-z0-9][A-Za-z0-9._/:-]{0,254}(@sha256:[0-9a-f]{64})?")
"""A name in a registry or the local store; `:/` would name a transport, such as docker-archive:/path."""
IMAGE_ID = re.compile(r"[0-9a-f]{64}")
DIRECTORY_PATH = re.compile(r"/[^\x00-\x1f\x7f:,]*")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEYS = {"runtime", "image", "image_id", "models", "devices"}


@dataclass(frozen=True)
class Container:
    """What is to run. `image_id` is empty until the image is there; no `models` directory means none is mounted."""

    runtime: str
    image: str
    image_id: str
    models: str | None
    devices: tuple[int, ...]
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Identity:
    """The user and groups of the engine on this machine."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def check_container(content: object) -> Container:
    """Return the container that a launch file describes. Raises LaunchFileError."""
    if not isinstance(content, dict) or set(content) != {"argv", "env", "container"}:
        raise LaunchFileError("must be an object with the keys argv, env and container")
    argv, env, wanted = content["argv"], content["env"], content["container"]
    if not isinstance(wanted, dict) or set(wanted) != KEYS:
        raise LaunchFileError(f"container must be an object with the keys {', '.join(sorted(KEYS))}")
    if not (isinstance(argv, list) and all(isinstance(word, str) and "\0" not in word for word in argv)):
        raise LaunchFileError("argv must be a list of strings")
    if not (isinstance(env, dict) and all(_is_variable(name, value) for name, value in env.items())):
        raise LaunchFileError("env must be an object of strings by variable name")
    devices, models = wanted["devices"], wanted["models"]
    if wanted["runtime"] not in RUNTIMES:
        raise LaunchFileError(f"runtime must be one of {', '.join(RUNTIMES)}")
    if not _matches(IMAGE, wanted["image"]) or not (wanted["image_id"] == "" or _matches(IMAGE_ID, wanted["image_id"])):
        raise LaunchFileError("image or image_id is invalid")
    if not (models is None or (_matches(DIRECTORY_PATH, models) and ".." not in models.split("/"))):
        raise LaunchFileError("models must be an absolute path without : and ,")
    if not (isinstance(devices, list) and all(type(index) is int and 0 <= index < 256 for index in devices)):
        raise LaunchFileError("devices must be a list of indices")
    return Container(
        wanted["runtime"], wanted["image"], wanted["image_id"], models, tuple(devices), tuple(argv), dict(env)
    )


def run_command(
    pool: str, container: Container, identity: Identity | None, env_file: str | None, *, unit: bool
) -> list[str]:
    """Return the command that runs the container, with the runtime's name as its first word.

    In a unit podman returns once the container runs and leaves the unit to conmon. Everything stays in the unit's
    control group (`--cgroups=disabled`), whose limits count for the engine and which ends as a whole; `split` would
    need Delegate= and gain nothing. `env_file` has the variables, since a command line is not secret.
    """
    podman = container.runtime == "podman"
    words = [container.runtime, "run", "--rm", f"--name={name_of(pool)}", "--pull=never", "--network=host"]
    if podman:
        words += ["--replace", "--cgroups=disabled", "--log-driver=passthrough", "--ulimit=host"]
        words += ["--detach", "--sdnotify=conmon"] if unit else ["--sdnotify=ignore"]
        words += ["--security-opt=label=disable"]
    else:
        words += ["--pids-limit=4096", "--log-driver=none"]
    words += ["--cap-drop=all", "--security-opt=no-new-privileges", "--read-only", f"--shm-size={SHM}"]
    words += ["--tmpfs=/tmp", "--env=HOME=/tmp"]
    if identity:
        words += [f"--user={identity.uid}:{identity.gid}"]
        words += [f"--group-add={group}" for group in identity.groups if group != identity.gid]
    words += [f"--device={device}" for device in _devices(container)] if podman else _docker_devices(container)
    if container.models:
        words += [f"--volume={container.models}:{MODELS}:ro"]
    words += [f"--env-file={env_file}"] if env_file else []
    return [*words, container.image_id or container.image, *container.argv]


def name_of(pool: str) -> str:
    """Return the name of the pool's container."""
    return f"llama-engine-{pool}"


def _devices(container: Container) -> list[str]:
    if not container.devices:
        return []
    if os.path.exists("/dev/kfd") and not os.path.exists("/dev/nvidiactl"):
        return ["/dev/kfd", "/dev/dri"]
    return [f"nvidia.com/gpu={index}" for index in container.devices]


def _docker_devices(container: Container) -> list[str]:
    devices = _devices(container)
    if devices and devices[0].startswith("nvidia"):
        return [f'--gpus="device={",".join(map(str, container.devices))}"']
    return [f"--device={device}" for device in devices]


def facts_of(
    runtime: str, image: str, entry: Sequence[str], identity: Identity | None, known: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return id and digest of an image that is here, and what its engine prints for --version and --help; else None.

    `entry` are the words before the arguments. The engine is not run if the facts `known` are about the same image.
    Blocks.
    """
    user = [f"--user={identity.uid}:{identity.gid}"] if identity else []
    inspect = [runtime, "image", "inspect", image]
    for _attempt in range(2):
        found = subprocess.run(inspect, capture_output=True, text=True, check=False)  # noqa: S603 -- checked names
        if found.returncode >= 0:  # a runtime that was killed has not said that the image is absent
            break
    if found.returncode != 0:
        return None
    [about, *_] = json.loads(found.stdout)
    digests = about.get("RepoDigests") or []
    image_id = str(about["Id"]).removeprefix("sha256:")
    if known.get("image_id") == image_id and known.get("help"):
        return dict(known)
    return {
        "image_id": image_id,
        "digest": digests[0].partition("@")[2] if digests else about.get("Digest", ""),
        "version": _printed(runtime, [*user, image, *entry, "--version"]),
        "help": _printed(runtime, [*user, image, *entry, "--help"]),
    }


def _printed(runtime: str, words: list[str]) -> str:
    """Return what a program of the image prints; empty if it cannot be run so."""
    command = [runtime, "run", "--rm", "--pull=never", "--network=none", "--cap-drop=all", "--read-only"]
    command += ["--cgroups=disabled", "--ulimit=host"] if runtime == "podman" else []
    try:
        done = subprocess.run(  # noqa: S603 -- checked names
            [*command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    text = done.stdout[:TEXT_LIMIT].decode(errors="replace")
    if done.returncode == 0:
        return text
    sys.stderr.write(f"{words[-1]} of the engine ended with status {done.returncode}: {text[-LINE_LIMIT:]}\n")
    return ""


def write_env_file(path: str, env: Mapping[str, str]) -> str:
    """Write the variables to a file that only this user can read; return its path. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in sorted(env.items()))
    return path


def _is_variable(name: object, value: object) -> bool:
    return _matches(NAME, name) and isinstance(value, str) and not CONTROL.search(value)


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None
