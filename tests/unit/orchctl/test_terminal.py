"""orchctl on a terminal: line editing, Ctrl-C and Ctrl-D, and the queue position."""

import json

import pytest

from orchctl.chat.queue_position import PATH as QUEUED
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


def test_chat_has_line_editing_and_recall() -> None:
    with serve(chatting(chat("Hello"), chat("again"))) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("model tiny; /help")
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


def test_ctrl_c_cancels_answer_and_keeps_its_part() -> None:
    with serve(chatting(chat_begun("Hel") + HOLD, chat("on"))) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.type(b"hi\r")
        tty.wait_for("Hel")
        tty.type(CTRL_C)
        queen.wait_until_closed(CHAT)
        tty.wait_for("\r\n> ")
        tty.type(b"go on\r")
        tty.wait_for("on\r\n> ")
        tty.type(CTRL_D)
        assert tty.end() == 0
        assert queen.bodies(CHAT)[1]["messages"] == [user("hi"), assistant("Hel"), user("go on")]
    assert "Hel^C" in tty.screen


def test_ctrl_c_before_first_token_drops_turn() -> None:
    with serve(chatting(HOLD, chat("there"))) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.type(b"hi\r")
        queen.wait_for(CHAT)
        tty.type(CTRL_C)
        queen.wait_until_closed(CHAT)
        tty.wait_for("\r\n> ")
        tty.type(b"again\r")
        tty.wait_for("there\r\n> ")
        assert queen.bodies(CHAT)[1]["messages"] == [user("again")]
        tty.type(b"/exit\r")
        assert tty.end() == 0


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_ctrl_c_and_ctrl_d_at_prompt_exit_0(key: bytes) -> None:
    with serve(chatting()) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.wait_until_it_waits()
        tty.type(key)
        assert tty.end() == 0
    assert tty.output.endswith(b"\r\n")


def test_slash_commands_work_and_unknown_one_continues() -> None:
    with serve(chatting(chat("x"))) as queen, terminal("chat", "--url", queen.url) as tty:
        for typed, expected in (
            ("/help", "/clear: clear"),
            ("/fly", "unknown command: /fly"),
            ("/model slow", ""),
            ("/model", "model slow; available: tiny, slow"),
            ("a", "x"),
            ("/clear", ""),
            ("b", "x"),
        ):
            tty.wait_for("> ")
            tty.type(typed.encode() + b"\r")
            tty.wait_for(f"{typed}\r\n")
            tty.wait_for(expected)
        tty.wait_for("> ")
        tty.type(CTRL_D)
        assert tty.end() == 0
        assert [(body["model"], body["messages"]) for body in queen.bodies(CHAT)] == [
            ("slow", [user("a")]),
            ("slow", [user("b")]),
        ]


def test_failed_answer_is_printed_and_chat_continues() -> None:
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


def test_chat_shows_queue_position() -> None:
    with serve(chatting(HOLD)) as queen, terminal("chat", "--url", queen.url) as tty:
        tty.wait_for("> ")
        tty.type(b"hi\r")
        queen.wait_for(CHAT)
        own = {
            **TASK,
            "correlation_id": queen.requests_for(CHAT)[0].headers["x-correlation-id"],
            "predicted_start_ms": 4000,
        }
        queen.answers[f"GET {QUEUED}"] = [page({**TASK, "queue_position": 0}, own)]
        tty.wait_for("3rd in the queue, about 4 s")
        tty.type(CTRL_C)
        tty.wait_for("\r> ")
        tty.type(CTRL_D)
        assert tty.end() == 0


def test_submit_shows_and_clears_queue_position() -> None:
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


def test_quiet_hides_queue_position() -> None:
    script = submitting(stream(("started", {"queue_position": 2, "predicted_start_ms": 9}), *tokens("x"), ("end", END)))
    with serve(script) as queen, terminal("submit", "--quiet", "--url", queen.url, "x") as tty:
        assert tty.end() == 0
    assert tty.output == b"x\r\n"


def test_model_output_cannot_control_terminal() -> None:
    script = submitting(stream(*tokens("a\x1b]0;title\x07b"), ("end", END)))
    with serve(script) as queen:
        with terminal("submit", "--url", queen.url, "x") as tty:
            assert tty.end() == 0
        assert run_process("submit", "--url", queen.url, "x").stdout == "a\x1b]0;title\x07b\n"
    assert b"\x1b" not in tty.output


def test_prompt_from_terminal_is_announced() -> None:
    script = submitting(stream(*tokens("x"), ("end", END)))
    with serve(script) as queen, terminal("submit", "--url", queen.url) as tty:
        tty.wait_for("Ctrl-D")
        tty.type(b"a prompt\r" + CTRL_D)
        assert tty.end() == 0
        assert queen.bodies("POST /v2/tasks")[0]["prompt"] == "a prompt\n"


def test_further_pages_are_noted_on_terminal() -> None:
    with serve({"GET /v2/tasks": [page(TASK, following="x")]}) as queen, terminal("tasks", "--url", queen.url) as tty:
        assert tty.end() == 0
    assert tty.screen[-2] == "orchctl: more entries: use --before x, or --all"
