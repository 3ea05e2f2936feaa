"""Exit statuses from sysexits(3), and the exception that ends a start with one."""

from enum import IntEnum


class ExitStatus(IntEnum):
    OK = 0
    USAGE = 64
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    OS_ERROR = 71
    CANNOT_CREATE = 73
    IO_ERROR = 74
    TEMPORARY = 75
    NO_PERMISSION = 77
    CONFIG = 78


class StartupError(Exception):
    """The daemon cannot start: the problem, how to fix it (`hint`), and the exit status."""

    def __init__(self, message: str, hint: str, status: ExitStatus) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status
