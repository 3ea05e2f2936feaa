"""The decision about a unit that may already be running."""

from enum import Enum


class UnitAction(Enum):
    """What to do with a pool's unit."""

    START = "start"
    """It is not running."""

    ADOPT = "adopt"
    """It runs with the right launch file and answers: leave it alone."""

    REPLACE = "replace"
    """It runs with another launch file, or does not answer."""


RUNNING = ("active", "reloading", "activating", "deactivating")


def choose_action(active_state: str, launched: bytes | None, required: bytes, answers: bool) -> UnitAction:
    """Choose the action for a unit in `active_state`.

    `launched` is the launch file it was started from, None if the file is gone; `required` the one it should have
    been started from; `answers` whether the engine answers its health check.
    """
    if active_state not in RUNNING:
        return UnitAction.START
    if active_state == "active" and launched == required and answers:
        return UnitAction.ADOPT
    return UnitAction.REPLACE
