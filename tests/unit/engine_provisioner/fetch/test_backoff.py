"""A download goes on for as long as bytes arrive, and gives up without progress."""

from engine_provisioner.fetch.backoff import FIRST_S, LONGEST_S, TRIES, Backoff


def test_progress_is_retried_for_ever_and_at_once() -> None:
    backoff = Backoff()
    for done in range(1, 1000):
        backoff = backoff.after_failure(done)
        assert backoff.delay_s(1) == FIRST_S


def test_without_progress_pauses_grow_until_it_gives_up() -> None:
    backoff, pauses = Backoff(), []
    while (pause := (backoff := backoff.after_failure(0)).delay_s(1)) is not None:
        pauses.append(pause)
    assert len(pauses) == TRIES - 1
    assert pauses == sorted(pauses)
    assert max(pauses) <= LONGEST_S


def test_starting_over_is_no_progress() -> None:
    """A server without ranges that always breaks at the same place must not be asked for ever."""
    backoff = Backoff()
    for _ in range(TRIES):
        backoff = backoff.after_failure(500)
    assert backoff.after_failure(400).delay_s(0) is None


def test_jitter_spreads_pauses() -> None:
    backoff = Backoff().after_failure(0)
    assert backoff.delay_s(0) == FIRST_S / 2
