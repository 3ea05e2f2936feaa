"""The input of orchctl chat: lines of a pipe, and a prompt at a terminal."""

import io
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.chat.input import PROMPT, ChatInput, open_input
from orchctl.errors import CommandError
from tests.unit.orchctl.test_output import FakeTerminal


def stdin_with(data: bytes = b"", *, interactive: bool, raw: io.BytesIO | None = None) -> io.TextIOWrapper:
    """Return a standard input that contains `data`; it is a terminal if `interactive`."""
    stdin = io.TextIOWrapper(raw or io.BytesIO(data), "utf-8", errors="surrogateescape")
    setattr(stdin, "isatty", lambda: interactive)  # noqa: B010 -- a method of the class
    return stdin


def read_all(text: str, *, interactive: bool, raw: io.BytesIO | None = None) -> list[str]:
    with mock.patch("sys.stdin", stdin_with(text.encode(), interactive=interactive, raw=raw)):
        found = open_input()
        assert found == ChatInput(interactive)
        return list(iter(found.next, None))


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)))
def test_lines_end_at_newlines(texts: list[str]) -> None:
    assert read_all("".join(f"{text}\n" for text in texts), interactive=False) == texts
    assert read_all("\n".join(texts), interactive=False) == texts


def test_prompt_stays_out_of_redirected_stdout() -> None:
    with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", FakeTerminal()) as terminal:
        assert read_all("a\nb\n", interactive=True) == ["a", "b"]
    assert (out.getvalue(), terminal.getvalue()) == ("", PROMPT * 3)


def test_pipe_gets_no_prompt() -> None:
    with mock.patch("sys.stdout", FakeTerminal()) as out, mock.patch("sys.stderr", FakeTerminal()) as terminal:
        read_all("a\n", interactive=False)
    assert out.getvalue() + terminal.getvalue() == ""


def test_ctrl_c_at_prompt_ends_input() -> None:
    class Interrupted(io.BytesIO):
        def readline(self, _size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    with mock.patch("sys.stdout", io.StringIO()), mock.patch("sys.stderr", FakeTerminal()) as terminal:
        assert read_all("", interactive=True, raw=Interrupted()) == []
    assert terminal.getvalue() == f"{PROMPT}\n"


def test_invalid_byte_is_reported_with_total_offset() -> None:
    with mock.patch("sys.stdin", stdin_with(b"\xc3\xbc\r\nok\nb\xff\n", interactive=False)):
        found = open_input()
        assert (found.next(), found.next()) == ("\u00fc", "ok")
        with pytest.raises(CommandError, match=r"byte 8 \(0xff"):
            found.next()
