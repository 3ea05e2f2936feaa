"""What becomes of an engine that may be running already: a pure decision."""

from enum import Enum


class Verdict(Enum):
    """What to do with a pool's unit."""

    START = "start"
    """It does not run."""

    ADOPT = "adopt"
    """It runs as wanted and answers: it is left alone, whatever else was restarted."""

    REPLACE = "replace"
    """It runs otherwise than wanted, or does not answer."""


RUNNING = ("active", "reloading", "activating", "deactivating")


def verdict(active_state: str, launched: bytes | None, wanted: bytes, answers: bool) -> Verdict:
    """What to do with a unit in `active_state` that was started from the launch file `launched`, None if it is gone.

    `wanted` is the launch file that it should have been started from; `answers` whether it is alive at its address.
    """
    if active_state not in RUNNING:
        return Verdict.START
    if active_state == "active" and launched == wanted and answers:
        return Verdict.ADOPT
    return Verdict.REPLACE
