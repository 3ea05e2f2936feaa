"""The history of a conversation and the messages made of it."""

from hypothesis import given
from hypothesis import strategies as st

from orchctl.chat.conversation import History

TURNS = st.lists(st.tuples(st.text(min_size=1), st.text()))


@given(st.none() | st.text(), TURNS, st.text())
def test_messages_are_answered_turns_then_new_text(system: str | None, turns: list[tuple[str, str]], text: str) -> None:
    history = History(system)
    for asked, answer in turns:
        history.add_turn(asked, answer)
    messages = history.messages(text)
    assert messages[-1] == {"role": "user", "content": text}
    before = [message for message in messages[:-1] if message["role"] != "system"]
    assert [message["content"] for message in before] == [words for turn in turns if turn[1] for words in turn]
    assert [message["role"] for message in before] == ["user", "assistant"] * (len(before) // 2)
    assert [message["content"] for message in messages if message["role"] == "system"] == ([system] if system else [])


@given(st.text())
def test_messages_do_not_change_history(text: str) -> None:
    history = History("s", [("a", "b")])
    assert history.messages(text) == history.messages(text)
    assert history.turns == [("a", "b")]
