"""Keys: from the bytes of a terminal to names, and what each does to the view. Pure functions."""

import re
from collections.abc import Iterator
from dataclasses import replace

from llama_orch.contracts.pools import PoolStatus
from llama_orch.contracts.tasks import TaskView
from orchctl.client import build_path
from orchctl.top.board import LiveNode, Situation
from orchctl.top.frame import Action, View, selected_index, sorted_elements
from orchctl.top.lists import Listing, pool_name, shown_lists

SEQUENCE = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b|[\x00-\x7f]|[\x80-\xff]+")
NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\t": "tab",
    b"\x1b[Z": "back",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b": "escape",
}
STEPS = {"up": -1, "down": 1, "page up": -10, "page down": 10}
NOTHING_TO_DRAIN = "select a node or a pool first: tab changes the list"
NOTHING_TO_CANCEL = "select a task first: tab changes the list"


def key_names(data: bytes) -> Iterator[str]:
    """Yield the name of each key in `data`: a word for special keys, otherwise the character."""
    for sequence in SEQUENCE.findall(data):
        yield NAMES.get(sequence) or sequence.decode(errors="replace")


def press(view: View, key: str, situation: Situation) -> tuple[View, Action | None]:
    """Return the view after a key, and the action to do now, which the user has confirmed."""
    if view.question:
        confirmed = view.question if key in ("y", "Y") else None
        return replace(view, question=None, message=""), confirmed
    view = replace(view, message="", help=key == "?" and not view.help)
    lists = shown_lists(situation)
    names = [each.name for each in lists]
    index = names.index(view.current) if view.current in names else len(names) - 1
    listing = lists[index]
    view = replace(view, current=listing.name)
    if key in ("tab", "back"):
        return replace(view, current=names[(index + (1 if key == "tab" else -1)) % len(names)]), None
    if key == "s":
        order = (view.orders.get(listing.name, 0) + 1) % len(listing.orders)
        return replace(view, orders={**view.orders, listing.name: order}), None
    if key in STEPS:
        return _moved(view, listing, situation, STEPS[key]), None
    if key == "d":
        return _asking(view, _drain(_selected(view, listing, situation)), NOTHING_TO_DRAIN), None
    if key == "c":
        return _asking(view, _cancel(_selected(view, listing, situation)), NOTHING_TO_CANCEL), None
    return view, None


def _asking(view: View, action: Action | None, otherwise: str) -> View:
    return replace(view, question=action, message="" if action else otherwise)


def _selected(view: View, listing: Listing, situation: Situation) -> object:
    elements = sorted_elements(listing, view, situation)
    return elements[selected_index(listing, view, elements)] if elements else None


def _moved(view: View, listing: Listing, situation: Situation, step: int) -> View:
    elements = sorted_elements(listing, view, situation)
    if not elements:
        return view
    index = min(max(0, selected_index(listing, view, elements) + step), len(elements) - 1)
    return replace(view, selected={**view.selected, listing.name: listing.key(elements[index])})


def _drain(element: object) -> Action | None:
    """Return the drain of a node or pool; the end of it if it is drained."""
    if isinstance(element, LiveNode):
        verb = "resume" if element.status == "draining" else "drain"
        return Action(build_path("/v2/nodes", element.node_id, verb), f"{verb} node {element.node_id}")
    if isinstance(element, PoolStatus):
        verb = "resume" if element.draining else "drain"
        path = build_path("/v2/pools", element.pool_id, verb, node_id=element.node_id)
        return Action(path, f"{verb} pool {pool_name(element)}")
    return None


def _cancel(element: object) -> Action | None:
    if isinstance(element, TaskView):
        return Action(build_path("/v2/tasks", str(element.task_id), "cancel"), f"cancel task {element.task_id}")
    return None
