"""An engine that runs as wanted and answers is left alone; everything else is started or replaced."""

import pytest

from engine_provisioner.launch.adoption import Verdict, verdict

WANTED = b"{}"


@pytest.mark.parametrize(
    ("active", "launched", "answers", "expected"),
    [
        ("active", WANTED, True, Verdict.ADOPT),
        ("active", WANTED, False, Verdict.REPLACE),
        ("active", b"other", True, Verdict.REPLACE),
        ("active", None, True, Verdict.REPLACE),
        ("deactivating", WANTED, True, Verdict.REPLACE),
        ("inactive", WANTED, False, Verdict.START),
        ("failed", WANTED, False, Verdict.START),
        ("failed", None, True, Verdict.START),
    ],
)
def test_what_becomes_of_a_unit(active: str, launched: bytes | None, answers: bool, expected: Verdict) -> None:
    assert verdict(active, launched, WANTED, answers) is expected
