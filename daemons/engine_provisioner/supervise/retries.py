"""When a failed pool is tried again: pure functions over counts and seconds."""

from dataclasses import dataclass

from engine_provisioner.failures import Retry

FIRST_S = 0.5
MINUTE_S = 60.0
HOUR_S = 3600.0
LONG_RUN_S = 60.0
"""An engine that was ready for so long has shown that it can run: what was counted before is forgotten."""


@dataclass(frozen=True)
class Attempts:
    """How many times in a row a pool has failed."""

    failed: int = 0

    def after_failure(self, ready_for_s: float) -> "Attempts":
        """The count after one more failure, the engine having been ready for `ready_for_s` seconds before it."""
        return Attempts(1 if ready_for_s >= LONG_RUN_S else self.failed + 1)


def delay_s(retry: Retry, failed: int) -> float | None:
    """Seconds until the next try after `failed` failures in a row, or None for never."""
    doublings = min(max(failed, 1) - 1, 20)
    match retry:
        case Retry.BACKOFF:
            return min(FIRST_S * 2.0**doublings, MINUTE_S)
        case Retry.MENDING:
            return MINUTE_S
        case Retry.COSTLY:
            return min(MINUTE_S * 2.0**doublings, HOUR_S)
        case Retry.NEVER:
            return None


def next_step(delay: float | None, watched: bool, failed: int = 1) -> str:
    """What happens next after `failed` failures in a row, for the operator who reads of the failure."""
    if delay is None:
        return "not tried again; change the pools file and restart engine-provisioner"
    changed = ", or when the file changes" if watched else ""
    count = f" (failed {failed} times)" if failed > 1 else ""
    return f"tried again in {delay:g} s{changed}{count}"
