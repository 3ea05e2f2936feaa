"""The event log: what was appended comes out in order, whole, at each reader's own pace, and nothing after the end."""

import json

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.event_log import NARRATION, EventLog

BASES = st.sampled_from([0, 1 << 32, 3 << 32])
EVENTS = st.lists(st.tuples(st.sampled_from(["token", "metrics", NARRATION]), st.text(max_size=8)), max_size=30)


def filled(base: int, events: list[tuple[str, str]]) -> EventLog:
    log = EventLog(base)
    for event, text in events:
        assert log.append(event, {"t": text})
    return log


def parsed(data: bytes) -> list[tuple[int, str, str]]:
    """Ids, names and texts of frames, as a client reads them."""
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        number, event, payload = frame.split("\n", 2)
        found.append((int(number[4:]), event[7:], json.loads(payload[6:])["t"]))
    return found


@given(BASES, EVENTS, st.integers(-5, 40), st.booleans())
def test_a_reader_gets_what_is_behind_its_id_in_order_and_narration_only_where_it_wants_it(base, events, read, verbose):
    log = filled(base, events)
    wanted = [(base + number, event, text) for number, (event, text) in enumerate(events, 1) if number > read]
    if not verbose:
        wanted = [item for item in wanted if item[1] != NARRATION]
    data, last_id = log.after(base + read, verbose)
    assert parsed(data) == wanted
    assert last_id == max(base + read, base + len(events))


@given(BASES, EVENTS)
def test_frames_are_the_same_events_one_by_one(base, events):
    log = filled(base, events)
    frames = log.frames(0)
    assert [(frame.event, json.loads(frame.payload)["t"]) for frame in frames] == events
    assert b"".join(frame.data for frame in frames) == log.after(0, verbose=True)[0]
    assert log.size == len(log.after(0, verbose=True)[0])
    assert len(log) == len(events)


@given(EVENTS, st.lists(st.integers(1, 5), max_size=40))
def test_several_readers_at_different_paces_see_the_same(events, steps):
    log = EventLog()
    slow, slow_id, fast, fast_id = b"", 0, b"", 0
    for number, (event, text) in enumerate(events):
        log.append(event, {"t": text})
        data, fast_id = log.after(fast_id, verbose=True)
        fast += data
        if steps and number % steps[number % len(steps)] == 0:
            data, slow_id = log.after(slow_id, verbose=True)
            slow += data
    slow += log.after(slow_id, verbose=True)[0]
    assert slow == fast


def test_nothing_follows_the_terminal_event():
    for terminal in ("end", "error"):
        log = filled(0, [("token", "a")])
        assert log.append(terminal, {})
        before = log.size
        assert not log.append("token", {"t": "late"})
        assert (log.size, log.last_id, log.closed) == (before, 2, True)


async def test_waiting_readers_are_woken_by_an_event_and_by_suspension():
    log = EventLog()
    woken: list[str] = []

    async def wait(name: str, last_id: int) -> None:
        await log.wait_beyond(last_id)
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "first", 0)
        nursery.start_soon(wait, "second", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        log.append("token", {"t": "a"})
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["first"]
        log.suspend()
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["first", "second"]


def test_text_of_any_language_goes_through_as_it_is():
    log = filled(0, [("token", "Grüße 🦙")])
    assert "Grüße 🦙".encode() in log.after(0, verbose=False)[0]
