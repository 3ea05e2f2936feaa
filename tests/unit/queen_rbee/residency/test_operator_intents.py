"""The end of one operation drops only what that operation asked for."""

from queen_rbee.residency.operator_intents import OperatorIntents

KEY = ("a", "")


def test_end_of_an_unload_keeps_a_newer_load():
    intents = OperatorIntents()
    intents.unload(KEY, "requested")
    intents.load(KEY)
    intents.forget(KEY, "unload")
    assert intents.wanted == {KEY}


def test_end_of_a_load_keeps_a_newer_unload():
    intents = OperatorIntents()
    intents.load(KEY)
    intents.unload(KEY, "requested")
    intents.forget(KEY, "load")
    assert intents.unwanted == {KEY: "requested"}
