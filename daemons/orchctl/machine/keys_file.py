"""keys.toml of this machine: found, read, and replaced as a whole."""

import fcntl
import grp
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_orch.contracts.keys import KeySpec
from llama_orch.files import durable
from llama_orch.keys.keys_file import DEFAULT_PATH, VARIABLE, KeysFileError, parse, read
from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.machine.provisioner import sudo_command

GROUP_OF_DAEMON = "queen-rbee"


@dataclass(frozen=True)
class KeysText:
    """The content of the file, and the keys in it."""

    text: str
    keys: tuple[KeySpec, ...]

    def key(self, name: str) -> KeySpec | None:
        return next((key for key in self.keys if key.name == name), None)


def keys_path(option: str | None) -> Path:
    """Return the file: of --file, of the environment, or the packaged one."""
    return Path(option or os.environ.get(VARIABLE) or DEFAULT_PATH)


def read_keys(path: Path) -> KeysText:
    """Return what is in the file; nothing if there is none. Raises CommandError if it is unusable, or not readable."""
    try:
        path.stat()
    except FileNotFoundError:
        return KeysText("", ())
    except OSError as error:
        raise _denied("read", path, error) from error
    try:
        raw = read(path) or b""
        return KeysText(raw.decode(), parse(raw, path))
    except KeysFileError as error:
        if isinstance(error.__cause__, OSError):
            raise _denied("read", path, error.__cause__) from error
        raise CommandError(
            "\n".join(error.problems), "Fix the file first: see llama-orch-keys(5).", ExitStatus.CONFIG
        ) from error


def change_keys(path: Path, change: Callable[[KeysText], str]) -> None:
    """Replace the file by what `change` makes of it, with the same mode and owner. Raises CommandError.

    Nothing is written unless the result is a valid file. Changes at the same time wait for each other.
    """
    path = path.resolve()
    try:
        with _locked(path.parent):
            text = change(read_keys(path))
            parse(text.encode(), path)
            _write(path, text.encode())
    except OSError as error:
        raise _denied("write", path, error) from error
    except KeysFileError as error:
        raise CommandError("\n".join(error.problems), "Nothing has changed.", ExitStatus.DATA) from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(path: Path, content: bytes) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        durable.replace(path, content, group=_group() if os.geteuid() == 0 else None)
        return
    owner = found.st_uid if os.geteuid() == 0 else None
    durable.replace(path, content, found.st_mode & 0o777, found.st_gid, owner)


def _group() -> int | None:
    try:
        return grp.getgrnam(GROUP_OF_DAEMON).gr_gid
    except KeyError:  # the daemon runs from a source tree
        return None


def _denied(verb: str, path: Path, error: OSError) -> CommandError:
    if isinstance(error, PermissionError):
        return CommandError(
            f"cannot {verb} {path}: permission denied", f"Run: {sudo_command()}", ExitStatus.NO_PERMISSION
        )
    hint = "The keys of users are in a file on the machine of queen-rbee: run orchctl key there, as root."
    return CommandError(f"cannot {verb} {path}: {error.strerror}", hint, ExitStatus.CANNOT_CREATE)
