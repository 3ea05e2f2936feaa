"""Stored responses: found, continued, deleted, and bounded by number, bytes and age."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.keys import KeySpec
from llama_orch.keys.secret_keys import digest
from queen_rbee.keys.keyring import Keyring
from queen_rbee.response_store import ResponseStore, StoredResponse


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def build_store(size: int = 1000, age_s: float = 60, responses: int = 100) -> tuple[ResponseStore, Clock]:
    clock = Clock()
    return ResponseStore(size, age_s, responses, clock), clock


def response(name: str, previous: str | None = None, size: int = 10) -> StoredResponse:
    return StoredResponse(name, previous, b"x" * (size - 2), b"{}")


def has(store: ResponseStore, *names: str) -> list[bool]:
    return [store.get(name) is not None for name in names]


def test_conversation_is_oldest_first():
    store, _clock = build_store()
    for name, previous in (("a", None), ("b", "a"), ("other", None), ("c", "b")):
        store.add(response(name, previous))
    assert [found.response_id for found in store.conversation("c")] == ["a", "b", "c"]


def test_missing_link_of_a_conversation_is_named():
    store, _clock = build_store()
    store.add(response("a"))
    store.add(response("b", "a"))
    store.add(response("c", "b"))
    assert store.delete("a")
    with pytest.raises(KeyError, match="a"):
        store.conversation("c")


def test_least_recently_used_response_makes_room():
    store, _clock = build_store(responses=2)
    store.add(response("a"))
    store.add(response("b"))
    store.get("a")
    store.add(response("c"))
    assert has(store, "a", "b", "c") == [True, False, True]


def test_bytes_are_bounded_and_too_large_ones_are_not_stored():
    store, _clock = build_store(size=25)
    assert store.add(response("a"))
    assert store.add(response("b"))
    assert store.add(response("c"))
    assert not store.add(response("d", size=26))
    assert has(store, "a", "b", "c", "d") == [False, True, True, False]


def test_contents_are_erased_by_age_since_last_use():
    store, clock = build_store(age_s=60)
    store.add(response("a"))
    store.add(response("b"))
    clock.now = 59
    store.get("b")
    clock.now = 60
    store.remove_expired()
    assert [name for name in "ab" if name in store._stored] == ["b"]
    clock.now = 119
    assert has(store, "b") == [False]


def test_use_of_a_conversation_keeps_all_of_it():
    store, clock = build_store(age_s=60)
    store.add(response("a"))
    store.add(response("b", "a"))
    clock.now = 50
    store.conversation("b")
    clock.now = 100
    assert has(store, "a", "b") == [True, True]


def test_store_without_bytes_is_off():
    store, _clock = build_store(size=0)
    assert not store.enabled
    assert not store.add(response("a"))


@given(st.lists(st.tuples(st.sampled_from(["add", "get", "delete", "wait"]), st.integers(0, 9), st.integers(2, 40))))
def test_bounds_hold_whatever_happens(steps: list[tuple[str, int, int]]):
    store, clock = build_store(size=100, age_s=20, responses=5)
    for act, number, amount in steps:
        if act == "add":
            store.add(response(str(number), size=amount))
        elif act == "get":
            store.get(str(number))
        elif act == "delete":
            store.delete(str(number))
        else:
            clock.now += amount
            store.remove_expired()
        stored = store._stored.values()
        assert store._size == sum(each.size for each in stored) <= 100
        assert len(stored) <= 5
        assert act != "wait" or all(each.used > clock.now - 20 for each in stored)


def test_response_of_a_key_is_not_there_for_another() -> None:
    keys = Keyring()
    keys.replace([KeySpec(name=name, sha256=digest(name)) for name in ("alice", "bob")])
    store, _clock = build_store()
    keys.enter(["alice"], "POST", "/v1/responses")
    store.add(response("mine"))
    assert store.get("mine") is not None
    keys.enter(["bob"], "POST", "/v1/responses")
    assert store.get("mine") is None
    with pytest.raises(KeyError):
        store.conversation("mine")
    keys.leave()
    assert store.get("mine") is not None
