"""The delay between attempts at a failed pool."""

from dataclasses import dataclass

from engine_provisioner.failures import Retry

FIRST_S = 0.5
MINUTE_S = 60.0
HOUR_S = 3600.0
LONG_RUN_S = 60.0
"""An engine that was ready for this long has proved that it works: earlier failures no longer count."""


@dataclass(frozen=True)
class FailureCount:
    """The number of consecutive failures of a pool."""

    failed: int = 0

    def after_failure(self, ready_for_s: float) -> "FailureCount":
        """Return the count after a failure before which the engine was ready for `ready_for_s` seconds."""
        return FailureCount(1 if ready_for_s >= LONG_RUN_S else self.failed + 1)


def delay_s(retry: Retry, failed: int) -> float | None:
    """Return the delay after `failed` consecutive failures, or None if there is no further attempt."""
    doublings = min(max(failed, 1) - 1, 20)
    match retry:
        case Retry.BACKOFF:
            return min(FIRST_S * 2.0**doublings, MINUTE_S)
        case Retry.AFTER_FIX:
            return MINUTE_S
        case Retry.REFETCH:
            return min(MINUTE_S * 2.0**doublings, HOUR_S)
        case Retry.NEVER:
            return None


def next_step(delay: float | None, watched: bool, failed: int = 1) -> str:
    """Describe for the operator when the next attempt happens."""
    if delay is None:
        return "not tried again; change the pools file and restart engine-provisioner"
    changed = ", or when the file changes" if watched else ""
    count = f" (failed {failed} times)" if failed > 1 else ""
    return f"tried again in {delay:g} s{changed}{count}"
