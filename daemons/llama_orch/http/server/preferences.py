"""What clients prefer: the header Prefer of RFC 7240. Of its preferences, only `wait` is known here. Pure functions."""

import re

from llama_orch.contracts.tasks import WAIT_LIMIT_S

WAIT = re.compile(r'wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))\s*(?:;.*)?', re.ASCII | re.IGNORECASE | re.DOTALL)


def preferred_wait_s(prefer: str | None) -> int | None:
    """Return the seconds of `wait=N` in a Prefer header; None if it has none. The first of several counts.

    What is malformed is ignored, as the RFC says, and so is a wait beyond WAIT_LIMIT_S: it is no limit.
    """
    for preference in (prefer or "").split(","):
        if found := WAIT.fullmatch(preference.strip()):
            seconds = int(found[1] or found[2])
            return seconds if seconds <= WAIT_LIMIT_S else None
    return None


def applied(wait_s: int | None) -> list[tuple[str, str]]:
    """Return the header that tells that `wait=N` is respected; none without a wait."""
    return [] if wait_s is None else [("preference-applied", f"wait={wait_s}")]
