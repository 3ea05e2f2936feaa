"""Reloads are timed from engine-provisioner's reports, each of them once."""

from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.reloads import ReloadState
from pool_managerd.handoffs.reload_times import EndedReload, ReloadTimes
from tests.unit.pool_managerd.values import report


def seen(times: ReloadTimes, now_s: float, state: ReloadState, reload_id: str = "one") -> list[EndedReload]:
    found = report(PoolState.READY, reload={"reload_id": reload_id, "state": state})
    return list(times.update([found], now_s))


def test_reload_is_timed_from_its_start_and_counted_once() -> None:
    times = ReloadTimes()
    assert seen(times, 1.0, ReloadState.STAGING) == []
    assert seen(times, 5.0, ReloadState.SWITCHING) == []
    assert seen(times, 9.0, ReloadState.DONE) == [EndedReload("default", 8.0, success=True)]
    assert seen(times, 10.0, ReloadState.DONE) == []


def test_failure_is_no_success_and_a_cancel_is_neither() -> None:
    times = ReloadTimes()
    seen(times, 0.0, ReloadState.REVERTING)
    assert [ended.success for ended in seen(times, 1.0, ReloadState.FAILED)] == [False]
    seen(times, 2.0, ReloadState.STAGED, "two")
    assert seen(times, 3.0, ReloadState.CANCELLED, "two") == []


def test_reload_that_ended_before_is_not_counted() -> None:
    assert seen(ReloadTimes(), 1.0, ReloadState.DONE) == []


def test_next_reload_is_timed_by_itself() -> None:
    times = ReloadTimes()
    seen(times, 0.0, ReloadState.STAGING, "one")
    seen(times, 10.0, ReloadState.STAGING, "two")
    assert [ended.took_s for ended in seen(times, 12.0, ReloadState.DONE, "two")] == [2.0]
