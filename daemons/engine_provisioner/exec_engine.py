"""The program of llama-engine@POOL.service: executes the engine that the pool's launch file describes.

Usage: `python3 -I -m engine_provisioner.exec_engine POOL [DIRECTORY]`. engine-provisioner writes the launch file
DIRECTORY/POOL.json. Imports only the standard library, to start fast.
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
DEFAULT_ENVIRONMENT = {"PATH": os.defpath, "HOME": "/", "LANG": "C.UTF-8"}


class LaunchFileError(Exception):
    """The launch file cannot be used; the message follows its path."""


def load(path: str) -> tuple[list[str], dict[str, str]]:
    """Return argument vector and environment from the launch file. Raises LaunchFileError."""
    return check_shape(read_launch_file(path))


def read_launch_file(path: str) -> object:
    """Return the content of the launch file, a JSON value. Raises LaunchFileError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise LaunchFileError(f"cannot be opened: {error.strerror}") from error
    with open(fd, "rb") as file:
        check_trust(os.fstat(fd), os.stat(os.path.dirname(path) or "."))
        raw = file.read(LIMIT_BYTES + 1)
    if len(raw) > LIMIT_BYTES:
        raise LaunchFileError(f"is larger than {LIMIT_BYTES} bytes")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise LaunchFileError(f"is not JSON: {error}") from error


def check_trust(file: os.stat_result, directory: os.stat_result) -> None:
    """Raise LaunchFileError unless only root or the owner of the launch directory can have written the file."""
    if not stat.S_ISREG(file.st_mode):
        raise LaunchFileError("is not a regular file")
    if file.st_uid not in (0, directory.st_uid):
        raise LaunchFileError(f"is owned by user {file.st_uid}, not by root or the owner of its directory")
    if file.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LaunchFileError("is writable by users other than its owner")


def check_shape(content: object) -> tuple[list[str], dict[str, str]]:
    """Return argument vector and environment from `content`. Raises LaunchFileError."""
    if not isinstance(content, dict) or set(content) != {"argv", "env"}:
        raise LaunchFileError("must be an object with the keys argv and env")
    argv, env = content["argv"], content["env"]
    if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
        raise LaunchFileError("argv must be a non-empty list of strings")
    if not (isinstance(env, dict) and all(isinstance(value, str) for value in env.values())):
        raise LaunchFileError("env must be an object of strings")
    if any("\0" in text for text in (*argv, *env, *env.values())) or any("=" in name or not name for name in env):
        raise LaunchFileError("has a NUL character, or an environment variable name that is empty or contains =")
    if not argv[0].startswith("/"):
        raise LaunchFileError("argv must begin with an absolute path")
    return argv, env


def fail(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(status)


def main() -> NoReturn:
    """Execute the engine, or exit with 78 (bad launch file) or 71 (cannot execute the program)."""
    if not 2 <= len(sys.argv) <= 3 or not POOL_ID.fullmatch(sys.argv[1]):
        fail("usage: exec_engine POOL [DIRECTORY] (POOL is a pool id)", CONFIG)
    path = f"{sys.argv[2] if len(sys.argv) == 3 else DIRECTORY}/{sys.argv[1]}.json"
    try:
        argv, env = load(path)
    except LaunchFileError as error:
        fail(f"{path} {error}", CONFIG)
    base = {name: os.environ.get(name, default) for name, default in DEFAULT_ENVIRONMENT.items()}
    try:
        os.execve(argv[0], argv, {**base, **env})  # noqa: S606 -- no shell; the provisioner wrote argv
    except (OSError, ValueError) as error:
        fail(f"cannot execute {argv[0]}: {error}", NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
