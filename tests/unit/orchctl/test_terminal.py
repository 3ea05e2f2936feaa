"""orchctl at a real terminal: line editing, Ctrl-C and Ctrl-D, and the line that tells where a task stands."""

import json

import pytest

from orchctl.waiting import PATH as QUEUED
from tests.unit.orchctl.chat.test_chat import FAILED, assistant, user
from tests.unit.orchctl.commands.test_tasks import QUEUED as TASK
from tests.unit.orchctl.commands.test_tasks import page
from tests.unit.orchctl.running import orchctl
from tests.unit.orchctl.scripted_queen import (
    CHAT,
    END,
    HOLD,
    chat,
    chat_begun,
    chatting,
    queen,
    stream,
    submitting,
    tokens,
)
from tests.unit.orchctl.terminal import BACKSPACE, CTRL_C, CTRL_D, UP, terminal


def test_a_conversation_with_editing_and_recall() -> None:
    with queen(chatting(chat("Hello"), chat("again"))) as her, terminal("chat", "--url", her.url) as person:
        person.wait_for("tiny answers; /help")
        person.wait_for("> ")
        person.type(b"hip" + BACKSPACE + b"\r")
        person.wait_for("Hello\r\n> ")
        person.type(UP + b"\r")
        person.wait_for("again\r\n> ")
        person.type(CTRL_D)
        assert person.end() == 0
        first, second = her.bodies(CHAT)
    assert first["messages"] == [user("hi")]
    assert second["messages"] == [user("hi"), assistant("Hello"), user("hi")]


def test_ctrl_c_cancels_the_answer_only_and_what_came_of_it_is_kept() -> None:
    with queen(chatting(chat_begun("Hel") + HOLD, chat("on"))) as her, terminal("chat", "--url", her.url) as person:
        person.wait_for("> ")
        person.type(b"hi\r")
        person.wait_for("Hel")
        person.type(CTRL_C)
        her.wait_until_left(CHAT)
        person.wait_for("\r\n> ")
        person.type(b"go on\r")
        person.wait_for("on\r\n> ")
        person.type(CTRL_D)
        assert person.end() == 0
        assert her.bodies(CHAT)[1]["messages"] == [user("hi"), assistant("Hel"), user("go on")]
    assert "Hel^C" in person.screen


def test_ctrl_c_before_anything_came_forgets_the_turn() -> None:
    with queen(chatting(HOLD, chat("there"))) as her, terminal("chat", "--url", her.url) as person:
        person.wait_for("> ")
        person.type(b"hi\r")
        her.wait_for(CHAT)
        person.type(CTRL_C)
        her.wait_until_left(CHAT)
        person.wait_for("\r\n> ")
        person.type(b"again\r")
        person.wait_for("there\r\n> ")
        assert her.bodies(CHAT)[1]["messages"] == [user("again")]
        person.type(b"/exit\r")
        assert person.end() == 0


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_at_the_prompt_both_leave_with_0_and_the_shell_gets_a_line_of_its_own(key: bytes) -> None:
    with queen(chatting()) as her, terminal("chat", "--url", her.url) as person:
        person.wait_for("> ")
        person.wait_until_it_waits()
        person.type(key)
        assert person.end() == 0
    assert person.output.endswith(b"\r\n")


def test_commands_are_answered_and_a_mistake_does_not_end_it() -> None:
    with queen(chatting(chat("x"))) as her, terminal("chat", "--url", her.url) as person:
        for typed, said in (
            ("/help", "/clear: forget"),
            ("/fly", "/fly is no command"),
            ("/model slow", ""),
            ("/model", "slow answers; there are tiny, slow"),
            ("a", "x"),
            ("/clear", ""),
            ("b", "x"),
        ):
            person.wait_for("> ")
            person.type(typed.encode() + b"\r")
            person.wait_for(f"{typed}\r\n")
            person.wait_for(said)
        person.wait_for("> ")
        person.type(CTRL_D)
        assert person.end() == 0
        assert [(body["model"], body["messages"]) for body in her.bodies(CHAT)] == [
            ("slow", [user("a")]),
            ("slow", [user("b")]),
        ]


def test_an_answer_that_fails_is_told_and_the_conversation_goes_on() -> None:
    broken = chat_begun("half") + b"data: " + json.dumps(FAILED).encode() + b"\n\n"
    with queen(chatting(broken, chat("whole"))) as her, terminal("chat", "--url", her.url) as person:
        person.wait_for("> ")
        person.type(b"hi\r")
        person.wait_for("half\r\norchctl: the answer failed: WORKER_RESET: the engine broke off")
        person.wait_for("> ")
        person.type(b"again\r")
        person.wait_for("whole\r\n> ")
        person.type(CTRL_D)
        assert person.end() == 0


def test_who_waits_in_a_chat_sees_where_it_stands() -> None:
    with queen(chatting(HOLD)) as her, terminal("chat", "--url", her.url) as person:
        person.wait_for("> ")
        person.type(b"hi\r")
        her.wait_for(CHAT)
        mine = {**TASK, "correlation_id": her.of(CHAT)[0].headers["x-correlation-id"], "predicted_start_ms": 4000}
        her.answers[f"GET {QUEUED}"] = [page({**TASK, "queue_position": 0}, mine)]
        person.wait_for("3rd in the queue, about 4 s")
        person.type(CTRL_C)
        person.wait_for("\r> ")
        person.type(CTRL_D)
        assert person.end() == 0


def test_who_waits_for_a_task_sees_how_the_queue_moves_and_nothing_of_it_stays() -> None:
    waiting = [
        ("started", {"queue_position": 2, "predicted_start_ms": 3400}),
        ("metrics", {"queue_depth": 9, "queue_position": 0, "predicted_start_ms": 900}),
        ("metrics", {"queue_depth": 8, "pool_id": "default"}),
    ]
    script = submitting(stream(*waiting) + HOLD, stream(*tokens("Hello"), ("end", END), first_id=4))
    with queen(script) as her, terminal("submit", "--url", her.url, "x") as person:
        person.wait_for("\rorchctl: 3rd in the queue, about 3 s")
        person.wait_for("\rorchctl: 1st in the queue, about 1 s")
        person.wait_for("\r" + " " * len("orchctl: 1st in the queue, about 1 s"))
        her.release()
        assert person.end() == 0
    assert person.screen == ["Hello", ""]


def test_quiet_says_no_word() -> None:
    script = submitting(stream(("started", {"queue_position": 2, "predicted_start_ms": 9}), *tokens("x"), ("end", END)))
    with queen(script) as her, terminal("submit", "--quiet", "--url", her.url, "x") as person:
        assert person.end() == 0
    assert person.output == b"x\r\n"


def test_a_model_cannot_command_the_terminal() -> None:
    script = submitting(stream(*tokens("a\x1b]0;title\x07b"), ("end", END)))
    with queen(script) as her:
        with terminal("submit", "--url", her.url, "x") as person:
            assert person.end() == 0
        assert orchctl("submit", "--url", her.url, "x").stdout == "a\x1b]0;title\x07b\n"
    assert b"\x1b" not in person.output


def test_who_is_asked_for_a_prompt_is_told_so() -> None:
    script = submitting(stream(*tokens("x"), ("end", END)))
    with queen(script) as her, terminal("submit", "--url", her.url) as person:
        person.wait_for("Ctrl-D")
        person.type(b"a prompt\r" + CTRL_D)
        assert person.end() == 0
        assert her.bodies("POST /v2/tasks")[0]["prompt"] == "a prompt\n"


def test_there_are_more_pages_is_said_to_a_person() -> None:
    with queen({"GET /v2/tasks": [page(TASK, following="x")]}) as her, terminal("tasks", "--url", her.url) as person:
        assert person.end() == 0
    assert person.screen[-2] == "orchctl: there are more: --before x, or --all"
