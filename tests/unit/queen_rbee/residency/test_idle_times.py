"""How long a pool has been idle, and when it is unloaded."""

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.residency.views import Usage, idle_times

TIMES = st.floats(0, 1000)


@given(TIMES, TIMES, TIMES, TIMES)
def test_idle_time_begins_with_the_last_use(loaded: float, used: float, released: float, keep_alive: float) -> None:
    now = 2000.0
    idle_s, unload_in_s = idle_times(Usage(loaded_at=loaded, used_at=used), keep_alive, released, now)
    assert idle_s == now - max(loaded, used, released)
    assert unload_in_s == max(0.0, keep_alive - idle_s)


def test_keep_alive_of_a_request_overrides_that_of_the_pool() -> None:
    usage = Usage(loaded_at=0.0, overridden=True, keep_alive_s=None)
    assert idle_times(usage, 60.0, 0.0, 10.0) == (10.0, None)
    assert idle_times(Usage(loaded_at=0.0), None, 0.0, 10.0) == (10.0, None)
