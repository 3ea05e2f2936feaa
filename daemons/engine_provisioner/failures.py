"""Why a pool could not be brought up, and whether trying again can help."""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path


class Retry(Enum):
    """What follows a failure."""

    BACKOFF = "backoff"
    """Time may heal it: tried again soon, then less and less often, at least each minute."""

    MENDING = "mending"
    """Somebody has to mend something first: looked at again each minute."""

    COSTLY = "costly"
    """Trying again means fetching everything again: after a minute, then less and less often, at least each hour."""

    NEVER = "never"
    """Only another pools file or another release can help."""


class ProvisioningFailure(Exception):
    """A pool cannot be had for now: what is wrong, where, and how to mend it, in words for an operator.

    A change of one of the files in `watch` is a reason to try again at once.
    """

    def __init__(self, message: str, hint: str = "", retry: Retry = Retry.BACKOFF, watch: Iterable[Path] = ()) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.retry = retry
        self.watch = tuple(watch)
