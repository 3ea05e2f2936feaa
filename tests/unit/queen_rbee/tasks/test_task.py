"""A task ends once, whatever ends it, and nothing follows its terminal event."""

import json

import trio
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.direct_answer import DirectAnswer
from queen_rbee.tasks.event_log import EventLog
from queen_rbee.tasks.task import Task

ACTIONS = st.lists(st.sampled_from(["token", "end", "fail", "cancel", "metrics"]), max_size=20)


def task(**request) -> Task:
    return Task(TaskRequest(prompt="x", **request), "correlation", 0.0)


def frames(log: EventLog | DirectAnswer) -> list[tuple[int, str, dict[str, object]]]:
    """Return (id, event, data) of every event in `log`."""
    data, _last = log.after(0, verbose=True)
    found = []
    for frame in filter(None, data.decode().split("\n\n")):
        number, event, body = (line.partition(": ")[2] for line in frame.split("\n"))
        found.append((int(number), event, json.loads(body)))
    return found


def do(subject: Task, action: str, now: float) -> None:
    if action == "token":
        subject.token("t", now)
    elif action == "end":
        subject.end(1, 1, now)
    elif action == "fail":
        subject.fail(ErrorCode.WORKER_RESET, "gone", now, retriable=True)
    elif action == "cancel":
        subject.cancel(now)
    else:
        subject.log.append("metrics", {"queue_depth": 1})


@given(ACTIONS)
def test_nothing_follows_the_first_terminal_event(actions):
    subject = task()
    for now, action in enumerate(actions):
        do(subject, action, float(now))
    events = [event for _, event, _ in frames(subject.log)]
    terminal = [index for index, event in enumerate(events) if event in ("end", "error")]
    assert terminal in ([], [len(events) - 1])
    assert subject.state.final == bool(terminal)


@given(ACTIONS)
def test_event_ids_start_at_one_and_token_numbers_at_zero(actions):
    subject = task()
    for now, action in enumerate(actions):
        do(subject, action, float(now))
    events = frames(subject.log)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    tokens = [data["i"] for _, event, data in events if event == "token"]
    assert tokens == list(range(len(tokens)))


def test_cancel_closes_the_task_scope():
    subject = task()
    assert subject.cancel(1.0)
    assert subject.scope.cancel_called
    assert not subject.token("late", 2.0)
    assert not subject.cancel(3.0)


def test_view_has_times_and_counts_but_no_prompt():
    subject = Task(TaskRequest(prompt="a secret wish"), "c", 10.0)
    subject.start("pool", "r0", 10.5)
    subject.token("t", 10.75)
    subject.end(7, 1, 11.0)
    view = subject.view()
    assert (view.timings.queued_ms, view.timings.first_token_ms, view.timings.decode_ms) == (500, 750, 250)
    assert (view.usage.tokens_in, view.usage.tokens_out) == (7, 1)
    assert "secret" not in view.model_dump_json()


@given(st.integers(0, 30), st.booleans())
def test_reader_resumes_after_any_event(cut, verbose):
    log = EventLog()
    for number in range(20):
        log.append("narration" if number % 3 == 0 else "token", {"i": number})
    whole, last = log.after(0, verbose)
    first, last_id = EventLog().after(0, verbose)
    assert (first, last_id) == (b"", 0)
    head = b"".join(f + b"\n\n" for f in whole.split(b"\n\n") if f and int(f.split(b"\n")[0][4:]) <= cut)
    rest, end = log.after(cut, verbose)
    assert head + rest == whole
    assert end == max(last, cut)


async def test_each_event_wakes_the_readers(autojump_clock):
    log = EventLog()
    got = []

    async def reader() -> None:
        last = 0
        while not (log.closed and last >= len(log)):
            await log.wait_beyond(last)
            _, last = log.after(last, verbose=False)
            got.append(last)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        nursery.start_soon(reader)
        for number in range(3):
            await trio.sleep(1)
            log.append("token", {"i": number})
        await trio.sleep(1)
        log.append("end", {})
    assert sorted(got) == [1, 1, 2, 2, 3, 3, 4, 4]


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(0, 5), st.integers(0, 2000))
def test_book_keeps_open_tasks_and_bounds_ended_ones(sizes, max_tasks, max_bytes):
    book = TaskBook(max_tasks, max_bytes)
    open_task = task()
    book.add(open_task)
    ended = []
    for size in sizes:
        subject = task()
        book.add(subject)
        subject.log.append("token", {"t": "x" * size})
        subject.end(0, 0, 1.0)
        book.mark_ended(subject)
        ended.append(subject)
        retained = [t for t in ended if book.get(t.task_id)]
        assert len(retained) <= max_tasks
        assert sum(t.log.size for t in retained) <= max_bytes
        assert retained == ended[len(ended) - len(retained) :]
    assert book.get(open_task.task_id) is open_task


def test_retry_key_recognises_content_without_keeping_it():
    prompt = "x" * 100_000
    first, again, other = (Task(TaskRequest(prompt=words), "c", 0.0) for words in (prompt, prompt, prompt + "y"))
    assert first.retry_key == again.retry_key != other.retry_key
    assert len(repr(first.retry_key)) < 100
