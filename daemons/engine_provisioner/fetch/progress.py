"""How far a download is, as numbers and as a line for operators."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 10.0
SAMPLE_S = 0.25


@dataclass(frozen=True)
class FetchProgress:
    """The progress of a model or of one file. None: not known (yet)."""

    bytes_done: int
    bytes_total: int | None
    rate_bytes_s: float | None = None
    eta_s: float | None = None

    def __str__(self) -> str:
        """Return a text like `34 % of 4.1 GiB, 52 MiB/s, 1 min left`."""
        total = self.bytes_total
        done = f"{100 * self.bytes_done // total} % of {size_text(total)}" if total else size_text(self.bytes_done)
        rate = f"{size_text(self.rate_bytes_s)}/s" if self.rate_bytes_s is not None else None
        left = f"{duration_text(self.eta_s)} left" if self.eta_s is not None else None
        return ", ".join(part for part in (done, rate, left) if part)


class Meter:
    """Turns byte counts into FetchProgress; the rate is that of the last WINDOW_S seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def progress(self, done: int, total: int | None) -> FetchProgress:
        """Return the progress now that `done` bytes are there. A count that falls begins a new measurement."""
        now = self._clock()
        samples = self._samples
        if samples and done < samples[-1][1]:
            samples.clear()
        if len(samples) < 2 or now - samples[-2][0] >= SAMPLE_S:
            samples.append((now, done))
        else:
            samples[-1] = (now, done)
        while len(samples) > 2 and now - samples[0][0] > WINDOW_S and now - samples[1][0] >= SAMPLE_S:
            samples.popleft()
        seconds = now - samples[0][0]
        rate = (done - samples[0][1]) / seconds if seconds >= SAMPLE_S else None
        eta = (total - done) / rate if total is not None and rate else None
        return FetchProgress(done, total, rate, eta)


def size_text(count: float) -> str:
    """Return a size such as 4.1 GiB."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    if count >= 10 << 20:
        return f"{count / (1 << 20):.0f} MiB"
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"


def duration_text(seconds: float) -> str:
    """Return a rounded duration such as 40 s, 12 min or 3.5 h."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
