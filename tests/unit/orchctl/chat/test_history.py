"""What a model is told of a conversation, and what is no part of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.chat.history import COMMANDS, History, SlashCommand, command_of, help_text
from orchctl.errors import CommandError

TURNS = st.lists(st.tuples(st.text(min_size=1), st.text()))


@given(st.none() | st.text(), TURNS, st.text())
def test_the_model_is_told_the_answered_turns_in_order_then_what_is_asked(
    system: str | None, turns: list[tuple[str, str]], text: str
) -> None:
    conversation = History(system)
    for asked, answer in turns:
        conversation.answered(asked, answer)
    messages = conversation.asking(text)
    assert messages[-1] == {"role": "user", "content": text}
    before = [message for message in messages[:-1] if message["role"] != "system"]
    assert [message["content"] for message in before] == [words for turn in turns if turn[1] for words in turn]
    assert [message["role"] for message in before] == ["user", "assistant"] * (len(before) // 2)
    assert [message["content"] for message in messages if message["role"] == "system"] == ([system] if system else [])


@given(st.text())
def test_asking_changes_nothing(text: str) -> None:
    conversation = History("s", [("a", "b")])
    assert conversation.asking(text) == conversation.asking(text)
    assert conversation.turns == [("a", "b")]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/exit", SlashCommand("exit", None)),
        ("/clear  ", SlashCommand("clear", None)),
        ("/model", SlashCommand("model", None)),
        ("/model  a b ", SlashCommand("model", "a b")),
        ("hello", None),
        (" /exit", None),
        ("/usr/bin is a directory", None),
        ("// a comment", None),
        ("/ 2", None),
        ("/1 and /2", None),
        ("", None),
    ],
)
def test_a_command_is_a_slash_and_a_word_at_the_beginning(line: str, command: SlashCommand | None) -> None:
    assert command_of(line) == command


@pytest.mark.parametrize("line", ["/quitt", "/Exit", "/etc", "/etc is a directory"])
def test_what_looks_like_a_command_and_is_none_says_so(line: str) -> None:
    with pytest.raises(CommandError, match="is no command") as caught:
        command_of(line)
    assert "/help" in caught.value.hint


def test_help_names_every_command() -> None:
    assert all(f"/{name}" in help_text() for name in COMMANDS)
