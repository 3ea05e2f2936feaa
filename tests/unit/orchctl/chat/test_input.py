"""What is said to `orchctl chat`: lines from a pipe as they are, and a prompt where somebody types."""

import io
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.chat.input import PROMPT, ChatInput, lines
from orchctl.errors import CommandError
from tests.unit.orchctl.test_output import Watched


def standard(data: bytes = b"", *, typed: bool, raw: io.BytesIO | None = None) -> io.TextIOWrapper:
    """Standard input with `data` in it; a terminal if it is `typed`."""
    stdin = io.TextIOWrapper(raw or io.BytesIO(data), "utf-8", errors="surrogateescape")
    setattr(stdin, "isatty", lambda: typed)  # noqa: B010 -- a method of the class
    return stdin


def heard(text: str, *, typed: bool, raw: io.BytesIO | None = None) -> list[str]:
    with mock.patch("sys.stdin", standard(text.encode(), typed=typed, raw=raw)):
        found = lines()
        assert found == ChatInput(typed)
        return list(iter(found.next, None))


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)))
def test_a_line_is_what_stands_before_its_end(texts: list[str]) -> None:
    assert heard("".join(f"{text}\n" for text in texts), typed=False) == texts
    assert heard("\n".join(texts), typed=False) == texts


def test_where_the_answers_go_elsewhere_the_prompt_does_not_follow_them() -> None:
    with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", Watched()) as terminal:
        assert heard("a\nb\n", typed=True) == ["a", "b"]
    assert (out.getvalue(), terminal.getvalue()) == ("", PROMPT * 3)


def test_from_a_pipe_there_is_no_prompt() -> None:
    with mock.patch("sys.stdout", Watched()) as out, mock.patch("sys.stderr", Watched()) as terminal:
        heard("a\n", typed=False)
    assert out.getvalue() + terminal.getvalue() == ""


def test_ctrl_c_instead_of_a_line_is_the_last_one() -> None:
    class Interrupted(io.BytesIO):
        def readline(self, _size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    with mock.patch("sys.stdout", io.StringIO()), mock.patch("sys.stderr", Watched()) as terminal:
        assert heard("", typed=True, raw=Interrupted()) == []
    assert terminal.getvalue() == f"{PROMPT}\n"


def test_wrong_byte_is_named_by_its_offset_in_all_lines() -> None:
    with mock.patch("sys.stdin", standard(b"\xc3\xbc\r\nok\nb\xff\n", typed=False)):
        found = lines()
        assert (found.next(), found.next()) == ("\u00fc", "ok")
        with pytest.raises(CommandError, match=r"byte 8 \(0xff"):
            found.next()
