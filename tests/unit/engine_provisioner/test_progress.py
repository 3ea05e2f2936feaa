"""A supervisor is overdue only after its own deadline and the slack."""

from engine_provisioner.progress import SLACK_S, Progress, overdue


def test_step_is_overdue_after_its_deadline_and_slack() -> None:
    now = 100.0
    progress = Progress("default", lambda: now)
    progress.expect(5, "hashing")
    now += 5 + SLACK_S
    assert progress.overdue() is None
    now += 1
    assert progress.overdue() == "pool default: hashing, overdue for 31 s"
    progress.expect(5, "hashing")
    assert progress.overdue() is None


def test_step_without_deadline_is_never_overdue() -> None:
    now = 0.0
    waiting, late = Progress("a", lambda: now), Progress("b", lambda: now)
    late.expect(1, "starting")
    waiting.rest("waiting")
    now = 1e9
    assert [step.partition(":")[0] for step in overdue([waiting, late])] == ["pool b"]
