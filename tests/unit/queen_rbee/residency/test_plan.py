"""What to load and unload: by bytes, never a busy or pinned pool, enough and no more."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.residency.actions import Load, Unload
from queen_rbee.residency.plan import make_plan, room_is_needed
from queen_rbee.residency.situation import Budget, Phase, Resident, Situation, Wait

GIB = 1 << 30
NOW = 1000.0


def pool(name: str, phase: Phase = Phase.UNLOADED, need: int = 4, machine: str = "m", **fields) -> Resident:
    """A pool that needs so many GiB on GPU 0; a loaded one has been loaded for long, has served and is idle."""
    if phase is Phase.LOADED:
        fields = {"used_at": NOW - 60, "loaded_at": NOW - 600, "served": True, **fields}
    return Resident((name, ""), machine, phase, {"0": need * GIB}, **fields)


def situation(*residents: Resident, waits: str = "", total: int = 12, used: int | None = None, **fields) -> Situation:
    """A machine with one GPU of `total` GiB; `used` is what it reports as used. A wait for each name in `waits`."""
    loaded = sum(sum(each.need.values()) for each in residents if each.in_memory)
    free = total * GIB - (loaded if used is None else used * GIB)
    since = fields.pop("since", NOW - 1)
    queue = [Wait(frozenset([(name, "")]), since) for name in waits.split()]
    return Situation(residents, {"m": {"0": Budget(total * GIB, free)}}, queue, NOW, **fields)


def actions(found: Situation) -> list[str]:
    verbs = {Load: "load", Unload: "unload"}
    return [f"{verbs[type(action)]} {action.key[0]}" for action in make_plan(found).actions]


def test_pool_is_loaded_when_a_task_waits_for_it():
    assert actions(situation(pool("a"), pool("b"), waits="a")) == ["load a"]


def test_nothing_is_loaded_without_a_task():
    assert actions(situation(pool("a"))) == []


def test_pool_in_memory_is_not_loaded_again():
    for phase in (Phase.LOADING, Phase.LOADED):
        assert actions(situation(pool("a", phase), waits="a")) == []


def test_operator_loads_without_a_task():
    assert actions(situation(pool("a", wanted=True))) == ["load a"]


def test_load_says_who_asked_for_it():
    assert make_plan(situation(pool("a"), waits="a")).actions == (Load(("a", ""), "tasks wait for it"),)
    assert make_plan(situation(pool("a", wanted=True))).actions == (Load(("a", ""), "requested by an operator"),)
    together = make_plan(situation(pool("a", need=2, group="g"), pool("b", need=2, group="g"), waits="a"))
    assert [action.reason for action in together.actions] == ["tasks wait for it", "it belongs to group g"]


def test_longest_unused_pool_makes_room():
    old, new = pool("old", Phase.LOADED, used_at=NOW - 90), pool("new", Phase.LOADED, used_at=NOW - 50)
    third = pool("third", Phase.LOADED, used_at=NOW - 70)
    assert actions(situation(new, old, third, pool("a"), waits="a")) == ["unload old"]


def test_no_more_is_evicted_than_needed():
    small = pool("small", Phase.LOADED, need=2, used_at=NOW - 90)
    large = pool("large", Phase.LOADED, need=8, used_at=NOW - 80)
    assert actions(situation(small, large, pool("a", need=6), waits="a")) == ["unload large"]


def test_load_follows_once_the_victim_is_gone():
    others = (pool("b", Phase.LOADED), pool("c", Phase.LOADED))
    assert actions(situation(pool("old"), *others, pool("a"), waits="a")) == ["load a"]


def test_busy_pool_is_not_evicted_for_a_short_wait():
    busy = pool("busy", Phase.LOADED, need=12, leases=1)
    plan = make_plan(situation(busy, pool("a"), waits="a"))
    assert plan.actions == ()
    assert list(plan.blocked.values()) == ["pool busy is in use"]
    assert plan.due_at == NOW + 9


def test_busy_pool_gives_way_after_a_long_wait():
    busy = pool("busy", Phase.LOADED, need=12, leases=1)
    assert actions(situation(busy, pool("a"), waits="a", since=NOW - 11)) == ["unload busy"]


def test_busy_pool_stays_for_as_long_as_its_load_pays():
    slow = pool("slow", Phase.LOADED, need=12, leases=1, loaded_at=NOW - 50, load_s=30.0)
    plan = make_plan(situation(slow, pool("a"), waits="a", since=NOW - 40))
    assert (plan.actions, plan.due_at) == ((), NOW + 40)


def test_pool_that_has_not_served_yet_is_not_evicted():
    fresh = pool("fresh", Phase.LOADED, need=12, loaded_at=NOW - 2, used_at=-inf, served=False)
    assert actions(situation(fresh, pool("a"), waits="a")) == []


def test_pinned_pool_is_never_evicted():
    pinned = pool("pinned", Phase.LOADED, need=12, pinned=True)
    plan = make_plan(situation(pinned, pool("a"), waits="a", since=0.0))
    assert (plan.actions, list(plan.blocked.values())) == ((), ["pool pinned is pinned"])


def test_pool_larger_than_the_device_is_tried_alone():
    assert actions(situation(pool("huge", need=20), pool("b", Phase.LOADED), waits="huge")) == ["unload b"]
    assert actions(situation(pool("huge", need=20), pool("b"), waits="huge")) == ["load huge"]


def test_memory_that_others_use_counts():
    loaded = pool("b", Phase.LOADED)
    assert actions(situation(loaded, pool("a"), waits="a", used=4)) == ["load a"]
    assert actions(situation(loaded, pool("a"), waits="a", used=10)) == ["unload b"]


def test_report_that_lags_behind_the_last_unload_is_waited_for():
    stale = situation(pool("b", Phase.LOADED), pool("a"), waits="a", used=12, settled_at={"m": NOW - 1})
    plan = make_plan(stale)
    assert (plan.actions, plan.due_at) == ((), NOW + 2)


def test_one_load_at_a_time_on_a_machine():
    assert actions(situation(pool("a"), pool("b"), waits="a b")) == ["load a"]
    assert actions(situation(pool("a", Phase.LOADING), pool("b"), waits="a b")) == []


def test_machines_load_side_by_side():
    other = pool("b", machine="n")
    found = situation(pool("a"), other, waits="a b")
    found = replace(found, budgets={**found.budgets, "n": {"0": Budget(12 * GIB, 12 * GIB)}})
    assert actions(found) == ["load a", "load b"]


def test_machine_with_room_is_preferred_to_one_that_must_evict():
    full, spare = pool("a", need=12), Resident(("a", "n"), "n", Phase.UNLOADED, {"0": 12 * GIB})
    wait = Wait(frozenset([full.key, spare.key]), NOW - 1)
    budgets = {"m": {"0": Budget(12 * GIB, 8 * GIB)}, "n": {"0": Budget(12 * GIB, 12 * GIB)}}
    plan = make_plan(Situation([full, spare, pool("b", Phase.LOADED)], budgets, [wait], NOW))
    assert plan.actions == (Load(("a", "n"), "tasks wait for it"),)


def test_idle_pool_is_unloaded_after_its_keep_alive():
    idle = pool("a", Phase.LOADED, keep_alive_s=60.0, used_at=NOW - 60)
    assert actions(situation(idle)) == ["unload a"]
    recent = replace(idle, used_at=NOW - 59)
    assert make_plan(situation(recent)).due_at == NOW + 1


@pytest.mark.parametrize("fields", [{"keep_alive_s": None}, {"leases": 1, "keep_alive_s": 0.0}])
def test_pool_stays_for_ever_or_while_it_is_busy(fields):
    assert actions(situation(pool("a", Phase.LOADED, **fields))) == []


def test_pool_without_keep_alive_serves_what_waits_first():
    assert actions(situation(pool("a", Phase.LOADED, keep_alive_s=0.0), waits="a")) == []


def test_exclusive_group_has_one_pool_in_memory():
    group: dict[str, Any] = {"group": "g", "exclusive": True}
    loaded = pool("a", Phase.LOADED, need=1, **group)
    assert actions(situation(loaded, pool("b", need=1, **group), pool("c", need=1), waits="b")) == ["unload a"]


def test_group_is_loaded_and_unloaded_together():
    members = pool("a", need=2, group="g"), pool("b", need=2, group="g")
    assert actions(situation(*members, waits="a")) == ["load a", "load b"]
    loaded = [replace(each, phase=Phase.LOADED, used_at=NOW - 60, loaded_at=NOW - 600, served=True) for each in members]
    assert actions(situation(*loaded, pool("c", need=10), waits="c")) == ["unload a", "unload b"]
    assert actions(situation(loaded[0], replace(loaded[1], leases=1), pool("c", need=10), waits="c")) == []


def test_drained_pool_is_not_loaded_and_serves_nobody():
    assert actions(situation(pool("a", closed=True), waits="a")) == []


def twins(**fields) -> tuple[Resident, Resident, Wait]:
    """Pools of one model, of which one is loaded and has a task; a second task waits."""
    busy, other = pool("a", Phase.LOADED, leases=1), pool("b", **fields)
    return busy, other, Wait(frozenset([busy.key, other.key]), NOW - 11)


def test_second_pool_of_a_busy_model_is_loaded_into_free_room():
    busy, other, wait = twins()
    found = replace(situation(busy, other), waits=[wait])
    assert make_plan(found).actions == (Load(("b", ""), "tasks wait for it beside busy pools"),)
    patient = replace(found, waits=[replace(wait, since=NOW - 4)])
    assert (make_plan(patient).actions, make_plan(patient).due_at) == ((), NOW + 6)


def test_second_pool_evicts_nothing():
    busy, other, wait = twins(need=8)
    assert actions(replace(situation(busy, other, pool("c", Phase.LOADED)), waits=[wait])) == []
    assert actions(replace(situation(busy, replace(other, need={"0": 20 * GIB})), waits=[wait])) == []


def test_second_pool_is_not_loaded_while_the_first_is_idle():
    busy, other, wait = twins()
    assert actions(replace(situation(replace(busy, leases=0), other), waits=[wait])) == []
    assert actions(replace(situation(replace(busy, phase=Phase.LOADING), other), waits=[wait])) == []
    assert actions(replace(situation(busy, other), waits=[replace(wait, promised=True)])) == []


def test_room_is_needed_while_something_waits_for_it():
    found = situation(pool("a"), pool("b", Phase.LOADED, leases=1), waits="a")
    assert room_is_needed(frozenset([("a", "")]), found)
    assert not room_is_needed(frozenset([("a", "")]), replace(found, waits=[]))
    wanted = situation(pool("a", wanted=True), pool("b", Phase.LOADED, leases=1))
    assert room_is_needed(frozenset([("a", "")]), wanted)


names = st.sampled_from("abcdef")


@st.composite
def situations(draw) -> Situation:
    residents = []
    for name in sorted(draw(st.sets(names, min_size=1))):
        phase = draw(st.sampled_from(Phase))
        fields = {
            "leases": draw(st.integers(0, 2)) if phase is Phase.LOADED else 0,
            "pinned": draw(st.booleans()),
            "served": draw(st.booleans()),
            "used_at": NOW - draw(st.integers(0, 400)),
            "loaded_at": NOW - draw(st.integers(0, 400)),
            "keep_alive_s": draw(st.sampled_from([None, 0.0, 300.0])),
            "group": draw(st.sampled_from([None, None, "g", "h"])),
        }
        exclusive = fields["group"] == "h"
        residents.append(pool(name, phase, draw(st.integers(1, 8)), exclusive=exclusive, **fields))
    waits = " ".join(draw(st.lists(names, unique=True, max_size=4)))
    found = situation(*residents, waits=waits, since=NOW - draw(st.integers(0, 100)))
    several = draw(st.sets(names, min_size=2, max_size=3))
    shared = Wait(frozenset((name, "") for name in several), NOW - draw(st.integers(0, 100)), draw(st.booleans()))
    return replace(found, waits=sorted([*found.waits, shared], key=lambda wait: wait.since))


@given(situations())
def test_plan_keeps_its_promises(found):
    plan = make_plan(found)
    residents = {each.key: each for each in found.residents}
    waited = {key for wait in found.waits for key in wait.pools}
    loads = [residents[action.key] for action in plan.actions if isinstance(action, Load)]
    unloads = [residents[action.key] for action in plan.actions if isinstance(action, Unload)]
    assert len({action.key for action in plan.actions}) == len(plan.actions)
    assert all(each.phase is Phase.UNLOADED for each in loads)
    assert all(each.phase is Phase.LOADED for each in unloads)
    reasons = {action.key: action.reason for action in plan.actions if isinstance(action, Unload)}
    for each in unloads:
        if "room" in reasons[each.key]:
            assert not each.pinned
            if each.leases or each.key in waited:
                assert min(wait.since for wait in found.waits) <= NOW - 10
    if loads:
        ours = [each for each in found.residents if each.in_memory]
        needed = sum(sum(each.need.values()) for each in (*loads, *ours))
        assert needed <= 12 * GIB or not ours
        assert not any(each.phase in (Phase.LOADING, Phase.UNLOADING) for each in found.residents)


@given(situations())
def test_fewer_victims_would_not_do(found):
    plan = make_plan(found)
    victims = [action.key for action in plan.actions if isinstance(action, Unload) and "room" in action.reason]
    residents = {each.key: each for each in found.residents}
    if not victims or any(residents[key].group for key in victims):
        return
    loading = plan.actions[0].reason.removeprefix("to make room for ").split(", ")
    if any(residents[name, ""].exclusive for name in loading):
        return
    need = sum(residents[name, ""].need["0"] for name in loading)
    loaded = sum(each.need["0"] for each in found.residents if each.in_memory)
    for spared in victims:
        freed = sum(residents[key].need["0"] for key in victims if key != spared)
        assert 12 * GIB - loaded + freed < need


@given(situations())
def test_loaded_model_gets_a_second_pool_only_into_free_room(found):
    for wait in found.waits:
        alone = replace(found, waits=[wait], residents=[replace(each, wanted=False) for each in found.residents])
        serving = [
            each
            for each in alone.residents
            if each.key in wait.pools and each.phase in (Phase.LOADING, Phase.LOADED) and not each.closed
        ]
        if not serving:
            continue
        made = make_plan(alone).actions
        assert not any(isinstance(action, Unload) and action.cause == "room" for action in made)
        loads = [each for each in alone.residents for action in made if action == Load(each.key, action.reason)]
        if loads:
            assert not wait.promised
            assert wait.since <= NOW - 10
            assert all(each.phase is Phase.LOADED and each.leases for each in serving)
            in_memory = sum(each.need["0"] for each in (*loads, *(each for each in alone.residents if each.in_memory)))
            assert in_memory <= 12 * GIB


@given(situations())
def test_room_is_made_only_for_what_waits(found):
    for action in make_plan(found).actions:
        if isinstance(action, Unload) and action.cause == "room":
            assert action.room_for
            assert room_is_needed(action.room_for, found)
            assert not room_is_needed(action.room_for, replace(found, waits=[]))
