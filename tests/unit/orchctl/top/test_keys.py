"""Keys: their names, and what they do to the view."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.top.board import Situation
from orchctl.top.frame import Action, View
from orchctl.top.keys import key_names, press
from tests.unit.orchctl.cluster import POOL
from tests.unit.orchctl.scripted_queen import TASK_ID
from tests.unit.orchctl.top.states import SECTIONS, WAITING_ID, situation


def pressed(*keys: str, view: View | None = None, known: Situation | None = None) -> View:
    return reduce(lambda now, key: press(now, key, known or situation())[0], keys, view or View())


def asked(*keys: str, view: View | None = None, known: Situation | None = None) -> Action | None:
    return pressed(*keys, view=view, known=known).question


def test_special_keys_have_names() -> None:
    assert [*key_names(b"\x1b[A\x1bOBq\t\x1b[Z\x1b[6~\x1b\xc3\xa9")] == [
        "up", "down", "q", "tab", "back", "page down", "escape", "é",
    ]  # fmt: skip


@given(st.binary(max_size=50))
def test_any_bytes_are_keys_that_do_nothing_unconfirmed(data: bytes) -> None:
    view = View()
    for key in key_names(data.replace(b"y", b"").replace(b"Y", b"")):
        view, action = press(view, key, situation())
        assert action is None


def test_tab_goes_through_the_lists() -> None:
    assert [pressed(*["tab"] * times).current for times in range(5)] == ["tasks", "nodes", "pools", "gpus", "tasks"]
    assert pressed("back").current == "gpus"


def test_selection_moves_and_stays_within_the_list() -> None:
    assert pressed("down").selected == {"tasks": WAITING_ID}
    assert pressed("down", "down", "down").selected == {"tasks": WAITING_ID}
    assert pressed("down", "up", "up").selected == {"tasks": str(TASK_ID)}
    assert pressed("page down").selected == {"tasks": WAITING_ID}


def test_s_changes_the_order_of_the_current_list() -> None:
    assert pressed("s", "tab", "s", "s").orders == {"tasks": 1, "nodes": 2}
    assert pressed(*["s"] * 4).orders == {"tasks": 0}


def test_d_drains_a_node_and_resumes_a_drained_one() -> None:
    nodes = View("nodes")
    assert asked("d", view=nodes) == Action("/v2/nodes/gpu-1/drain", "drain node gpu-1")
    assert asked("down", "d", view=nodes) == Action("/v2/nodes/gpu-2/resume", "resume node gpu-2")


def test_d_drains_a_pool_of_its_node() -> None:
    pools = View("pools")
    assert asked("d", view=pools) == Action("/v2/pools/default/drain?node_id=gpu-1", "drain pool default@gpu-1")
    drained = situation({**SECTIONS, "pools": {"x": {**POOL, "draining": True, "node_id": None}}})
    assert asked("d", view=pools, known=drained) == Action("/v2/pools/default/resume", "resume pool default")


def test_c_cancels_a_task() -> None:
    assert asked("c") == Action(f"/v2/tasks/{TASK_ID}/cancel", f"cancel task {TASK_ID}")


@pytest.mark.parametrize(("current", "key"), [("tasks", "d"), ("gpus", "d"), ("nodes", "c")])
def test_key_of_another_list_says_what_to_do(current: str, key: str) -> None:
    view = pressed(key, view=View(current))
    assert (view.question, "tab changes the list" in view.message) == (None, True)


@pytest.mark.parametrize("key", ["n", "escape", "q", "c", "d"])
def test_only_y_confirms(key: str) -> None:
    view, action = press(pressed("c"), key, situation())
    assert (view.question, action) == (None, None)
    view, action = press(pressed("c"), "y", situation())
    assert (view.question, action) == (None, Action(f"/v2/tasks/{TASK_ID}/cancel", f"cancel task {TASK_ID}"))


def test_help_is_toggled() -> None:
    assert pressed("?").help
    assert not pressed("?", "?").help
    assert not pressed("?", "x").help


def test_keys_do_nothing_in_empty_lists() -> None:
    empty = situation({"queen": SECTIONS["queen"]})
    assert [press(View(), key, empty)[1] for key in ("up", "down", "d", "c", "s", "tab")] == [None] * 6
