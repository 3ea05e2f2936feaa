"""A unit with the right launch file that answers is adopted; any other is started or replaced."""

import pytest

from engine_provisioner.launch.adoption import UnitAction, choose_action

REQUIRED = b"{}"


@pytest.mark.parametrize(
    ("active", "launched", "answers", "expected"),
    [
        ("active", REQUIRED, True, UnitAction.ADOPT),
        ("active", REQUIRED, False, UnitAction.REPLACE),
        ("active", b"other", True, UnitAction.REPLACE),
        ("active", None, True, UnitAction.REPLACE),
        ("deactivating", REQUIRED, True, UnitAction.REPLACE),
        ("inactive", REQUIRED, False, UnitAction.START),
        ("failed", REQUIRED, False, UnitAction.START),
        ("failed", None, True, UnitAction.START),
    ],
)
def test_action_for_a_unit(active: str, launched: bytes | None, answers: bool, expected: UnitAction) -> None:
    assert choose_action(active, launched, REQUIRED, answers) is expected
