"""Where the texts of a task come from: the command line, or standard input as one text or a text a line."""

import io
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.texts import TaskInput, read_stdin, texts_of
from tests.unit.orchctl.running import run_process

TEXT = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]))
WORDS = st.text(min_size=1).filter(lambda text: text != "-")


def standard(data: bytes) -> io.TextIOWrapper:
    """Standard input with `data` in it, as Python opens it in the locale C: what is wrong is passed on."""
    return io.TextIOWrapper(io.BytesIO(data), "utf-8", errors="surrogateescape")


def said(workload: str | None, given_words: list[str], stdin: str) -> TaskInput:
    with mock.patch("sys.stdin", standard(stdin.encode())):
        return texts_of(workload, given_words)


@given(WORDS, TEXT)
def test_a_prompt_on_the_command_line_leaves_standard_input_alone(prompt: str, stdin: str) -> None:
    assert said(None, [prompt], stdin) == said("completion", [prompt], "") == TaskInput(prompt=prompt)


@given(TEXT, st.sampled_from([[], ["-"]]))
def test_a_prompt_from_standard_input_is_all_of_it(stdin: str, given_words: list[str]) -> None:
    assert said("completion", given_words, stdin) == TaskInput(prompt=stdin)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))), st.booleans())
def test_a_line_is_a_text_whatever_else_it_holds(lines: list[str], result: bool) -> None:
    texts = [line for line in lines if line.strip()]
    stdin = "\n".join(lines) + ("\n" if result else "")
    assert said("embedding", [], stdin).inputs == texts
    assert said("rerank", ["query"], stdin) == TaskInput("query", texts)


@given(st.lists(WORDS, min_size=1))
def test_texts_on_the_command_line_are_taken_one_by_one(words: list[str]) -> None:
    assert said("embedding", words, "x") == TaskInput(inputs=words)
    assert said("rerank", ["query", *words], "x") == TaskInput("query", words)


@pytest.mark.parametrize(("workload", "words"), [(None, ["a", "b"]), ("rerank", []), ("rerank", ["-"])])
def test_what_fits_no_workload_is_a_wrong_command_line(workload: str | None, words: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        said(workload, words, "x")
    assert caught.value.status is ExitStatus.USAGE
    assert caught.value.hint


def test_standard_input_that_is_closed_or_fails_is_a_missing_input() -> None:
    class Failing(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    for stdin, words in ((None, "is closed"), (io.TextIOWrapper(Failing()), "Input/output error")):
        with mock.patch("sys.stdin", stdin), pytest.raises(CommandError, match=words) as caught:
            read_stdin()
        assert caught.value.status is ExitStatus.NO_INPUT


@pytest.mark.parametrize(
    ("data", "offset"), [(b"\xff", 0), ("gr\u00fc\u00dfe ".encode() + b"\xfc", 8), (b"a" * 9000 + b"\xc3", 9000)]
)
def test_wrong_byte_on_standard_input_is_named(data: bytes, offset: int) -> None:
    with mock.patch("sys.stdin", standard(data)), pytest.raises(CommandError, match="standard input") as caught:
        read_stdin()
    assert f"byte {offset} (0x{data[offset]:02x}" in caught.value.message
    assert caught.value.status is ExitStatus.DATA


def test_line_ends_of_other_systems_are_line_ends() -> None:
    assert said("embedding", [], "a\r\nb\rc") == TaskInput(inputs=["a", "b", "c"])


def test_wrong_bytes_are_not_blamed_on_the_command_line() -> None:
    result = run_process("submit", "--url", "http://127.0.0.1:1", stdin=b"caf\xe9", LC_ALL="C")
    assert result.returncode == ExitStatus.DATA
    assert "byte 3 (0xe9" in result.stderr
    assert "command line" not in result.stderr
