"""Progress has a rate of the last seconds, and says what is left."""

import pytest

from engine_provisioner.fetch.progress import FetchProgress, Meter, duration_text, size_text

MIB = 1 << 20


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (FetchProgress(0, None), "0 KiB"),
        (FetchProgress(1 << 30, 4 << 30), "25 % of 4.0 GiB"),
        (FetchProgress(34, 100, 52 * MIB, 70), "34 % of 0 KiB, 52 MiB/s, 1 min left"),
        (FetchProgress(MIB, None, 5.5 * MIB), "1.0 MiB, 5.5 MiB/s"),
    ],
)
def test_progress_is_described(progress: FetchProgress, text: str) -> None:
    assert str(progress) == text


def test_rate_is_that_of_the_last_seconds() -> None:
    now = 0.0
    meter = Meter(lambda: now)
    assert meter.progress(1000, 10_000).rate_bytes_s is None
    for second in range(1, 30):
        now = float(second)
        progress = meter.progress(1000 + 100 * second, 10_000)
    assert progress.rate_bytes_s == 100
    assert progress.eta_s == (10_000 - 3900) / 100
    for second in range(30, 60):
        now = float(second)
        progress = meter.progress(3900, 10_000)
    assert progress.rate_bytes_s == 0
    assert progress.eta_s is None


def test_bytes_of_an_earlier_run_do_not_count_for_the_rate() -> None:
    now = 0.0
    meter = Meter(lambda: now)
    meter.progress(5000, None)
    now = 2.0
    assert meter.progress(5200, None).rate_bytes_s == 100
    now = 4.0
    assert meter.progress(0, None).rate_bytes_s is None  # the download began anew


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (59.4, "59 s"), (61, "1 min"), (7200, "2.0 h")])
def test_durations_are_rounded(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(4.1 * 2**30, "4.1 GiB"), (52 * MIB, "52 MiB"), (1536, "2 KiB")])
def test_sizes_are_rounded(count: float, text: str) -> None:
    assert size_text(count) == text
