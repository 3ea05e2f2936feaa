"""The program of llama-engine@POOL.service: becomes the engine that the pool's launch file names.

Standard library only, and little of it: it stands between systemd and the engine. `python3 -I -m
engine_provisioner.exec_engine POOL [DIRECTORY]`; the launch file is DIRECTORY/POOL.json, written by the provisioner.
"""

import json
import os
import re
import stat
import sys
from typing import NoReturn

DIRECTORY = "/run/llama-orch/launch"
LIMIT_BYTES = 1 << 20
POOL_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
CONFIG, NOT_EXECUTABLE = 78, 71
KEPT = {"PATH": os.defpath, "HOME": "/", "LANG": "C.UTF-8"}


class Refused(Exception):
    """The launch file is not used; the message says why."""


def load(path: str) -> tuple[list[str], dict[str, str]]:
    """The argument vector and environment in the launch file. Raises Refused."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"cannot be opened: {error.strerror}") from error
    with open(fd, "rb") as file:
        check_trust(os.fstat(fd), os.stat(os.path.dirname(path) or "."))
        raw = file.read(LIMIT_BYTES + 1)
    if len(raw) > LIMIT_BYTES:
        raise Refused(f"is longer than {LIMIT_BYTES} bytes")
    try:
        return check_shape(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise Refused(f"is not JSON: {error}") from error


def check_trust(file: os.stat_result, directory: os.stat_result) -> None:
    """Raise Refused unless only root or the owner of the launch directory can have written the file."""
    if not stat.S_ISREG(file.st_mode):
        raise Refused("is not a regular file")
    if file.st_uid not in (0, directory.st_uid):
        raise Refused(f"belongs to user {file.st_uid}, neither to root nor to the owner of its directory")
    if file.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused("can be written by others than its owner")


def check_shape(content: object) -> tuple[list[str], dict[str, str]]:
    """`content` as argument vector and environment. Raises Refused."""
    if not isinstance(content, dict) or set(content) != {"argv", "env"}:
        raise Refused("must be an object with argv and env")
    argv, env = content["argv"], content["env"]
    if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
        raise Refused("argv must be a list of texts, not empty")
    if not (isinstance(env, dict) and all(isinstance(value, str) for value in env.values())):
        raise Refused("env must be an object of texts")
    if any("\0" in text for text in (*argv, *env, *env.values())) or any("=" in name or not name for name in env):
        raise Refused("has a text that no program can be given")
    if not argv[0].startswith("/"):
        raise Refused("argv must begin with an absolute path")
    return argv, env


def fail(message: str, status: int) -> NoReturn:
    """Say why and exit."""
    sys.stderr.write(f"{message}\n")
    sys.exit(status)


def main() -> NoReturn:
    """Become the engine, or exit with 78 (launch file refused) or 71 (it cannot be executed)."""
    if not 2 <= len(sys.argv) <= 3 or not POOL_ID.fullmatch(sys.argv[1]):
        fail("usage: exec_engine POOL [DIRECTORY]; POOL is the id of a pool", CONFIG)
    path = f"{sys.argv[2] if len(sys.argv) == 3 else DIRECTORY}/{sys.argv[1]}.json"
    try:
        argv, env = load(path)
    except Refused as error:
        fail(f"{path} {error}", CONFIG)
    base = {name: os.environ.get(name, default) for name, default in KEPT.items()}
    try:
        os.execve(argv[0], argv, {**base, **env})  # noqa: S606 -- no shell; what the provisioner chose
    except (OSError, ValueError) as error:
        fail(f"{argv[0]} cannot be executed: {error}", NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
