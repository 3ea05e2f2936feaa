"""orchctl at a real terminal: line editing, Ctrl-C and Ctrl-D, and the line that tells where a task stands."""

import json

import pytest

from orchctl.waiting import PATH as QUEUED
from tests.unit.orchctl.chat.test_chat import FAILED, assistant, user
from tests.unit.orchctl.commands.test_tasks import QUEUED as TASK
from tests.unit.orchctl.commands.test_tasks import page
from tests.unit.orchctl.running import run_process
from tests.unit.orchctl.scripted_queen import (
    CHAT,
    END,
    HOLD,
    chat,
    chat_begun,
    chatting,
    serve,
    stream,
    submitting,
    tokens,
)
from tests.unit.orchctl.terminal import BACKSPACE, CTRL_C, CTRL_D, UP, terminal


def test_a_conversation_with_editing_and_recall() -> None:
    with serve(chatting(chat("Hello"), chat("again"))) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("tiny answers; /help")
        tty.wait_for("> ")
        tty.type(b"hip" + BACKSPACE + b"\r")
        tty.wait_for("Hello\r\n> ")
        tty.type(UP + b"\r")
        tty.wait_for("again\r\n> ")
        tty.type(CTRL_D)
        assert tty.end() == 0
        first, second = queen.bodies(CHAT)
    assert first["messages"] == [user("hi")]
    assert second["messages"] == [user("hi"), assistant("Hello"), user("hi")]


def test_ctrl_c_cancels_the_answer_only_and_what_came_of_it_is_kept() -> None:
    with serve(chatting(chat_begun("Hel") + HOLD, chat("on"))) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.type(b"hi\r")
        tty.wait_for("Hel")
        tty.type(CTRL_C)
        queen.wait_until_left(CHAT)
        tty.wait_for("\r\n> ")
        tty.type(b"go on\r")
        tty.wait_for("on\r\n> ")
        tty.type(CTRL_D)
        assert tty.end() == 0
        assert queen.bodies(CHAT)[1]["messages"] == [user("hi"), assistant("Hel"), user("go on")]
    assert "Hel^C" in tty.screen


def test_ctrl_c_before_anything_came_forgets_the_turn() -> None:
    with serve(chatting(HOLD, chat("there"))) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.type(b"hi\r")
        queen.wait_for(CHAT)
        tty.type(CTRL_C)
        queen.wait_until_left(CHAT)
        tty.wait_for("\r\n> ")
        tty.type(b"again\r")
        tty.wait_for("there\r\n> ")
        assert queen.bodies(CHAT)[1]["messages"] == [user("again")]
        tty.type(b"/exit\r")
        assert tty.end() == 0


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_at_the_prompt_both_leave_with_0_and_the_shell_gets_a_line_of_its_own(key: bytes) -> None:
    with serve(chatting()) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.wait_until_it_waits()
        tty.type(key)
        assert tty.end() == 0
    assert tty.output.endswith(b"\r\n")


def test_commands_are_answered_and_a_mistake_does_not_end_it() -> None:
    with serve(chatting(chat("x"))) as queen, terminal("chat", "--url", queen.url) as tty:
        for typed, said in (
            ("/help", "/clear: forget"),
            ("/fly", "/fly is no command"),
            ("/model slow", ""),
            ("/model", "slow answers; there are tiny, slow"),
            ("a", "x"),
            ("/clear", ""),
            ("b", "x"),
        ):
            tty.wait_for("> ")
            tty.type(typed.encode() + b"\r")
            tty.wait_for(f"{typed}\r\n")
            tty.wait_for(said)
        tty.wait_for("> ")
        tty.type(CTRL_D)
        assert tty.end() == 0
        assert [(body["model"], body["messages"]) for body in queen.bodies(CHAT)] == [
            ("slow", [user("a")]),
            ("slow", [user("b")]),
        ]


def test_an_answer_that_fails_is_told_and_the_conversation_goes_on() -> None:
    broken = chat_begun("half") + b"data: " + json.dumps(FAILED).encode() + b"\n\n"
    with serve(chatting(broken, chat("whole"))) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.type(b"hi\r")
        tty.wait_for("half\r\norchctl: the answer failed: WORKER_RESET: the engine broke off")
        tty.wait_for("> ")
        tty.type(b"again\r")
        tty.wait_for("whole\r\n> ")
        tty.type(CTRL_D)
        assert tty.end() == 0


def test_who_waits_in_a_chat_sees_where_it_stands() -> None:
    with serve(chatting(HOLD)) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.type(b"hi\r")
        queen.wait_for(CHAT)
        mine = {**TASK, "correlation_id": queen.of(CHAT)[0].headers["x-correlation-id"], "predicted_start_ms": 4000}
        queen.answers[f"GET {QUEUED}"] = [page({**TASK, "queue_position": 0}, mine)]
        tty.wait_for("3rd in the queue, about 4 s")
        tty.type(CTRL_C)
        tty.wait_for("\r> ")
        tty.type(CTRL_D)
        assert tty.end() == 0


def test_who_waits_for_a_task_sees_how_the_queue_moves_and_nothing_of_it_stays() -> None:
    waiting = [
        ("started", {"queue_position": 2, "predicted_start_ms": 3400}),
        ("metrics", {"queue_depth": 9, "queue_position": 0, "predicted_start_ms": 900}),
        ("metrics", {"queue_depth": 8, "pool_id": "default"}),
    ]
    script = submitting(stream(*waiting) + HOLD, stream(*tokens("Hello"), ("end", END), first_id=4))
    with serve(script) as queen, terminal("submit", "--url", queen.url, "x") as tty:
        tty.wait_for("\rorchctl: 3rd in the queue, about 3 s")
        tty.wait_for("\rorchctl: 1st in the queue, about 1 s")
        tty.wait_for("\r" + " " * len("orchctl: 1st in the queue, about 1 s"))
        queen.release()
        assert tty.end() == 0
    assert tty.screen == ["Hello", ""]


def test_quiet_says_no_word() -> None:
    script = submitting(stream(("started", {"queue_position": 2, "predicted_start_ms": 9}), *tokens("x"), ("end", END)))
    with serve(script) as queen, terminal("submit", "--quiet", "--url", queen.url, "x") as tty:
        assert tty.end() == 0
    assert tty.output == b"x\r\n"


def test_a_model_cannot_command_the_terminal() -> None:
    script = submitting(stream(*tokens("a\x1b]0;title\x07b"), ("end", END)))
    with serve(script) as queen:
        with terminal("submit", "--url", queen.url, "x") as tty:
            assert tty.end() == 0
        assert run_process("submit", "--url", queen.url, "x").stdout == "a\x1b]0;title\x07b\n"
    assert b"\x1b" not in tty.output


def test_who_is_asked_for_a_prompt_is_told_so() -> None:
    script = submitting(stream(*tokens("x"), ("end", END)))
    with serve(script) as queen, terminal("submit", "--url", queen.url) as tty:
        tty.wait_for("Ctrl-D")
        tty.type(b"a prompt\r" + CTRL_D)
        assert tty.end() == 0
        assert queen.bodies("POST /v2/tasks")[0]["prompt"] == "a prompt\n"


def test_there_are_more_pages_is_said_to_a_person() -> None:
    with serve({"GET /v2/tasks": [page(TASK, following="x")]}) as queen, terminal("tasks", "--url", queen.url) as tty:
        assert tty.end() == 0
    assert tty.screen[-2] == "orchctl: there are more: --before x, or --all"
