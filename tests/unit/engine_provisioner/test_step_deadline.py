"""A supervisor is overdue only after its own deadline and the slack."""

from engine_provisioner.step_deadline import SLACK_S, StepDeadline, overdue


def test_step_is_overdue_after_its_deadline_and_slack() -> None:
    now = 100.0
    deadline = StepDeadline("default", lambda: now)
    deadline.expect(5, "hashing")
    now += 5 + SLACK_S
    assert deadline.overdue() is None
    now += 1
    assert deadline.overdue() == "pool default: hashing, overdue for 31 s"
    deadline.expect(5, "hashing")
    assert deadline.overdue() is None


def test_step_without_deadline_is_never_overdue() -> None:
    now = 0.0
    waiting, late = StepDeadline("a", lambda: now), StepDeadline("b", lambda: now)
    late.expect(1, "starting")
    waiting.rest("waiting")
    now = 1e9
    assert [step.partition(":")[0] for step in overdue([waiting, late])] == ["pool b"]
