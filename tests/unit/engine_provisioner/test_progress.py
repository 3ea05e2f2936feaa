"""A supervisor is overdue when it breaks its own word, and not before."""

from engine_provisioner.progress import SLACK_S, Progress, overdue


def test_a_promise_is_broken_only_after_its_time_and_the_slack() -> None:
    now = 100.0
    promise = Progress("default", lambda: now)
    promise.expect(5, "hashing")
    now += 5 + SLACK_S
    assert promise.overdue() is None
    now += 1
    assert promise.overdue() == "pool default: hashing, overdue for 31 s"
    promise.expect(5, "hashing")
    assert promise.overdue() is None


def test_who_promises_nothing_is_never_overdue() -> None:
    now = 0.0
    waiting, late = Progress("a", lambda: now), Progress("b", lambda: now)
    late.expect(1, "starting")
    waiting.rest("waiting")
    now = 1e9
    assert [words.partition(":")[0] for words in overdue([waiting, late])] == ["pool b"]
