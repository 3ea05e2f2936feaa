"""The delay between attempts at a failed pool, and when to give up. Pure."""

from dataclasses import dataclass

from engine_provisioner.failures import Retry

FIRST_S = 1.0
BACKOFF_MAX_S = 48.0
JITTER = 0.25
"""The delay is longer by up to this share, so that the engines of a machine do not all start at once."""
MINUTE_S = 60.0
HOUR_S = 3600.0
LONG_RUN_S = 300.0
"""An engine that was ready for this long has proved that it works: earlier failures no longer count."""
STORM_FAILURES, STORM_WITHIN_S, STORM_RUN_S = 10, 600.0, 60.0
"""So many failures of engines within that time are a restart storm, unless an engine was ready for STORM_RUN_S."""


@dataclass(frozen=True)
class Failures:
    """The failures of a pool: how many in a row, and the times in seconds of those that may add up to a storm."""

    in_row: int = 0
    recent: tuple[float, ...] = ()

    def after(self, retry: Retry, now_s: float, ready_for_s: float) -> "Failures":
        """Return the failures after one at `now_s`, before which the engine was ready for `ready_for_s` seconds."""
        kept = () if ready_for_s >= STORM_RUN_S else self.recent
        times = (*kept, now_s) if retry is Retry.RESTART else kept
        recent = tuple(time for time in times if time > now_s - STORM_WITHIN_S)[-STORM_FAILURES:]
        return Failures(1 if ready_for_s >= LONG_RUN_S else self.in_row + 1, recent)

    @property
    def storm(self) -> bool:
        """Whether the engine has failed too often to start it again."""
        return len(self.recent) >= STORM_FAILURES


def delay_s(retry: Retry, failures: Failures, jitter: float) -> float | None:
    """Return the delay after `failures`, or None if there is no further attempt; `jitter` is random, from 0 to 1."""
    doublings = min(max(failures.in_row, 1) - 1, 20)
    match retry:
        case Retry.RESTART if failures.storm:
            return None
        case Retry.BACKOFF | Retry.RESTART:
            return min(FIRST_S * 2.0**doublings, BACKOFF_MAX_S) * (1 + JITTER * jitter)
        case Retry.AFTER_FIX:
            return MINUTE_S
        case Retry.REFETCH:
            return min(MINUTE_S * 2.0**doublings, HOUR_S)
        case Retry.NEVER:
            return None


def next_step(delay: float | None, watched: bool, failures: Failures) -> str:
    """Describe for the operator when the next attempt happens."""
    changed = ", or when the file changes" if watched else ""
    if delay is None and failures.storm:
        often = f"after {STORM_FAILURES} failures within {STORM_WITHIN_S / 60:g} minutes"
        return f"not tried again {often}, unless somebody loads the pool or restarts engine-provisioner{changed}"
    if delay is None:
        return "not tried again; change the pools file, or restart engine-provisioner"
    count = f" (failed {failures.in_row} times)" if failures.in_row > 1 else ""
    return f"tried again in {delay:.0f} s{changed}{count}"
