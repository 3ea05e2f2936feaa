"""The failure of a pool, and when the supervisor tries again."""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path


class Retry(Enum):
    """When a failed pool is tried again; `supervise.retries` has the delays."""

    BACKOFF = "backoff"
    """The cause may go away: soon, then at growing intervals of at most a minute."""

    RESTART = "restart"
    """An engine ended or hung: as BACKOFF, but not any more once it has failed too often within a short time."""

    AFTER_FIX = "after_fix"
    """An operator has to fix something: every minute."""

    REFETCH = "refetch"
    """The next attempt fetches everything again: after a minute, then at growing intervals of at most an hour."""

    NEVER = "never"
    """Only another pools file or another release can help."""


class ProvisioningFailure(Exception):
    """A pool cannot be provisioned. `message` and `hint` are shown to the operator.

    The supervisor tries again at once when one of the files in `watch` changes.
    """

    def __init__(self, message: str, hint: str = "", retry: Retry = Retry.BACKOFF, watch: Iterable[Path] = ()) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.retry = retry
        self.watch = tuple(watch)
