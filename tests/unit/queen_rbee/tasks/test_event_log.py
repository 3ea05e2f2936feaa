"""The event log returns all events in order, to each reader at its own pace, up to the terminal event."""

import json

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.tasks.event_log import BATCH_BYTES, NARRATION, EventLog

BASES = st.sampled_from([0, 1 << 32, 3 << 32])
EVENTS = st.lists(st.tuples(st.sampled_from(["token", "metrics", NARRATION]), st.text(max_size=8)), max_size=30)


def filled(base: int, events: list[tuple[str, str]]) -> EventLog:
    log = EventLog(base)
    for event, text in events:
        assert log.append(event, {"t": text})
    return log


def parsed(data: bytes) -> list[tuple[int, str, str]]:
    """Return (id, name, text) of each frame, as a client parses them."""
    events = []
    for frame in data.decode().split("\n\n")[:-1]:
        number, event, payload = frame.split("\n", 2)
        events.append((int(number[4:]), event[7:], json.loads(payload[6:])["t"]))
    return events


@given(BASES, EVENTS, st.integers(-5, 40), st.booleans())
def test_reader_gets_events_after_its_id(base, events, read, verbose):
    log = filled(base, events)
    expected = [(base + number, event, text) for number, (event, text) in enumerate(events, 1) if number > read]
    if not verbose:
        expected = [item for item in expected if item[1] != NARRATION]
    data, last_id = log.after(base + read, verbose)
    assert parsed(data) == expected
    assert last_id == max(base + read, base + len(events))


@given(BASES, EVENTS)
def test_frames_equal_the_appended_events(base, events):
    log = filled(base, events)
    frames = log.frames(0)
    assert [(frame.event, json.loads(frame.payload)["t"]) for frame in frames] == events
    assert b"".join(frame.data for frame in frames) == log.after(0, verbose=True)[0]
    assert log.size == len(log.after(0, verbose=True)[0])
    assert len(log) == len(events)


@given(EVENTS, st.lists(st.integers(1, 5), max_size=40))
def test_readers_at_different_paces_see_the_same(events, steps):
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


@given(BASES, st.lists(st.integers(0, 2 * BATCH_BYTES), max_size=12), st.booleans())
def test_slow_reader_gets_bounded_batches(base, lengths, verbose):
    log = filled(base, [("token" if length % 5 else NARRATION, "x" * length) for length in lengths])
    whole, last_id = b"", base
    while last_id < log.last_id:
        data, reached = log.after(last_id, verbose)
        assert reached > last_id
        assert len(data) <= BATCH_BYTES or reached == last_id + 1
        assert b"".join(frame.data for frame in log.frame_batch(last_id) if verbose or frame.event != NARRATION) == data
        whole, last_id = whole + data, reached
    assert whole == b"".join(frame.data for frame in log.frames(0) if verbose or frame.event != NARRATION)
    assert log.after(last_id, verbose) == (b"", last_id)


def test_nothing_follows_the_terminal_event():
    for terminal in ("end", "error"):
        log = filled(0, [("token", "a")])
        assert log.append(terminal, {})
        before = log.size
        assert not log.append("token", {"t": "late"})
        assert (log.size, log.last_id, log.closed) == (before, 2, True)


async def test_event_and_suspension_wake_waiting_readers():
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


def test_non_ascii_text_is_unchanged():
    log = filled(0, [("token", "Grüße 🦙")])
    assert "Grüße 🦙".encode() in log.after(0, verbose=False)[0]


@given(BASES, EVENTS, st.lists(st.integers(0, 40), max_size=6), st.integers(-5, 40))
def test_discard_removes_only_older_events(base, events, discarded, read):
    log = EventLog(base)
    gone = 0
    for number, (event, text) in enumerate(events, 1):
        log.append(event, {"t": text})
        if discarded and number % 3 == 0:
            reached = min(discarded.pop(), number)
            log.discard(base + reached)
            gone = max(gone, reached)
    expected = [
        (base + number, event, text) for number, (event, text) in enumerate(events, 1) if number > max(gone, read)
    ]
    assert parsed(log.after(base + read, verbose=True)[0]) == expected
    assert parsed(b"".join(frame.data for frame in log.frames(base + read))) == expected
    assert log.size == len(log.after(0, verbose=True)[0])
    assert (len(log), log.last_id) == (len(events), base + len(events))
    plain = [item for item in expected if item[1] != NARRATION]
    assert parsed(log.after(base + read, verbose=False)[0]) == plain


def test_log_that_is_discarded_does_not_grow():
    log, largest = EventLog(), 0
    for number in range(10_000):
        log.append("chunk", {"t": "word ", "n": number})
        log.discard(log.last_id)
        largest = max(largest, log.size)
    assert largest == 0
    assert len(log) == 10_000
