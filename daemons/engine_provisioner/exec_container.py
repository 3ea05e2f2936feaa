"""The program of the units for engines in containers: it runs as root, and composes podman's command line itself.

Usage: `python3 -I -m engine_provisioner.exec_container pull|run|remove POOL [DIRECTORY]`.

engine-provisioner, which is not root, describes what it wants in DIRECTORY/POOL.json. That file names an image, a
directory of models, GPUs, arguments and variables, and nothing else: a container always runs as the user of native
engines, without capabilities, on a read-only root, and the directory is one that this user can reach. Variables go to
podman in a file: in its environment, LD_PRELOAD would give its author root. Imports only the standard library, to start
fast.
"""

import ctypes
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from typing import Any, NoReturn

from engine_provisioner.containers import (
    Container,
    Identity,
    check_container,
    facts_of,
    name_of,
    run_command,
    write_env_file,
)
from engine_provisioner.exec_engine import (
    CONFIG,
    DIRECTORY,
    NOT_EXECUTABLE,
    POOL_ID,
    LaunchFileError,
    fail,
    read_launch_file,
)

FACTS = "/run/llama-orch/images"
USER = "llama-engine"
UNAVAILABLE = 69
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MS_BIND = 4096


def _pull(pool: str, container: Container) -> NoReturn:
    """Pull the image unless it is here, and write what is known about it."""
    identity, known = _engine_identity(), _known_facts(f"{FACTS}/{pool}.json")
    facts = facts_of(container.runtime, container.image, container.argv, identity, known)
    if facts is None:
        pull = [container.runtime, "pull", container.image]
        status = subprocess.run(pull, check=False).returncode  # noqa: S603 -- checked names
        facts = facts_of(container.runtime, container.image, container.argv, identity, {}) if status == 0 else None
        if facts is None:
            sys.exit(status or UNAVAILABLE)
    os.makedirs(FACTS, mode=0o755, exist_ok=True)
    draft = f"{FACTS}/.{pool}.draft"
    with open(draft, "w") as file:
        json.dump(facts, file)
    os.replace(draft, f"{FACTS}/{pool}.json")
    sys.exit(0)


def _known_facts(path: str) -> dict[str, Any]:
    """Return the facts of an earlier pull, which this program wrote; empty without any."""
    try:
        with open(path) as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def _notify(message: str) -> None:
    """Send a message to the service manager, sd_notify(3)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)


def _open_models(path: str, identity: Identity) -> int:
    """Open a directory with the rights of the engine's user. Raises OSError."""
    os.setgroups(identity.groups)
    os.setegid(identity.gid)
    os.seteuid(identity.uid)
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([0])


def _mount(fd: int, target: str) -> str:
    """Mount an open directory on `target` in this unit's own mount namespace; return `target`.

    A user who may change its path cannot turn it into one that only root reaches. Raises OSError.
    """
    os.makedirs(target, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(f"/proc/self/fd/{fd}".encode(), target.encode(), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)
    return target


def _engine_identity() -> Identity:
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        fail(f"there is no user {USER}: systemd-sysusers creates it", CONFIG)
    return Identity(user.pw_uid, user.pw_gid, tuple(sorted(os.getgrouplist(USER, user.pw_gid))))


def main() -> NoReturn:
    """Pull or run, or exit with 78 (bad launch file), 69 (no runtime or image) or 71 (cannot execute it)."""
    if (
        not 3 <= len(sys.argv) <= 4
        or sys.argv[1] not in ("pull", "run", "remove")
        or not POOL_ID.fullmatch(sys.argv[2])
    ):
        fail("usage: exec_container pull|run|remove POOL [DIRECTORY] (POOL is a pool id)", CONFIG)
    action, pool = sys.argv[1:3]
    suffix = ".image" if action == "pull" else ".json"
    path = f"{sys.argv[3] if len(sys.argv) == 4 else DIRECTORY}/{pool}{suffix}"
    try:
        container = check_container(read_launch_file(path))
    except LaunchFileError as error:
        fail(f"{path} {error}", CONFIG)
    program = shutil.which(container.runtime, path=PATH)
    if program is None:
        fail(f"{container.runtime} is not installed", UNAVAILABLE)
    os.environ["PATH"] = PATH
    if action == "pull":
        _pull(pool, container)
    try:
        if action == "remove":
            _remove(pool, container)
        os.execv(program, _prepare(pool, container))  # noqa: S606 -- no shell; composed above
    except (OSError, ValueError) as error:
        fail(f"cannot run {container.runtime}: {error}", NOT_EXECUTABLE)


def _remove(pool: str, container: Container) -> NoReturn:
    """Remove the container, if it is there, and exit. Says nothing, unless it remains: the engine's log ends here.

    After a kill of conmon podman's first attempt fails, and only notes that the container has ended.
    """
    command = _remove_command(pool, container)
    for _attempt in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- checked names
        if done.returncode == 0 or "no such container" in done.stderr.lower():
            sys.exit(0)
    fail(done.stderr.strip(), UNAVAILABLE)


def _remove_command(pool: str, container: Container) -> list[str]:
    return [container.runtime, "rm", "--force", name_of(pool)]


def _prepare(pool: str, container: Container) -> list[str]:
    """Prepare variables and models in the unit's runtime directory; return the command. Raises OSError."""
    identity, scratch = _engine_identity(), os.environ["RUNTIME_DIRECTORY"]
    env_file = write_env_file(f"{scratch}/env", container.env)
    models = _open_models(container.models, identity) if container.models else None
    if container.runtime == "docker":
        subprocess.run(_remove_command(pool, container), capture_output=True, check=False)  # noqa: S603 -- checked names
        _notify("READY=1")  # podman's conmon does it itself
    elif models is not None:  # docker's daemon does not see this unit's mounts
        container = replace(container, models=_mount(models, f"{scratch}/models"))
    return run_command(pool, container, identity, env_file, unit=True)


if __name__ == "__main__":
    main()
