"""What is said to `orchctl chat`: lines from a pipe as they are, and a prompt where somebody types."""

import io
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from orchctl.lines import PROMPT, Lines, lines
from tests.unit.orchctl.test_output import Watched


def heard(stdin: io.StringIO, *, typed: bool) -> list[str]:
    with mock.patch("sys.stdin", stdin):
        found = lines()
        assert found == Lines(typed)
        return list(iter(found.next, None))


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)))
def test_a_line_is_what_stands_before_its_end(texts: list[str]) -> None:
    assert heard(io.StringIO("".join(f"{text}\n" for text in texts)), typed=False) == texts
    assert heard(io.StringIO("\n".join(texts)), typed=False) == texts


def test_where_the_answers_go_elsewhere_the_prompt_does_not_follow_them() -> None:
    with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", Watched()) as terminal:
        assert heard(Watched("a\nb\n"), typed=True) == ["a", "b"]
    assert (out.getvalue(), terminal.getvalue()) == ("", PROMPT * 3)


def test_from_a_pipe_there_is_no_prompt() -> None:
    with mock.patch("sys.stdout", Watched()) as out, mock.patch("sys.stderr", Watched()) as terminal:
        heard(io.StringIO("a\n"), typed=False)
    assert out.getvalue() + terminal.getvalue() == ""


def test_ctrl_c_instead_of_a_line_is_the_last_one() -> None:
    class Interrupted(Watched):
        def readline(self, _size: int | None = -1, /) -> str:  # type: ignore[override]
            raise KeyboardInterrupt

    with mock.patch("sys.stdout", io.StringIO()), mock.patch("sys.stderr", Watched()) as terminal:
        assert heard(Interrupted(), typed=True) == []
    assert terminal.getvalue() == f"{PROMPT}\n"
