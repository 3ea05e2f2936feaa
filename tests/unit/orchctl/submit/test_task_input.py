"""The texts of a task, from the command line or from standard input."""

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.submit.request import TaskInput, task_input
from tests.unit.orchctl.test_stdin import stdin_with

TEXT = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]))


WORDS = st.text(min_size=1).filter(lambda text: text != "-")


def input_for(workload: str | None, texts: list[str], stdin: str) -> TaskInput:
    with mock.patch("sys.stdin", stdin_with(stdin.encode())):
        return task_input(workload, texts)


@given(WORDS, TEXT)
def test_prompt_argument_leaves_stdin_unread(prompt: str, stdin: str) -> None:
    assert input_for(None, [prompt], stdin) == input_for("completion", [prompt], "") == TaskInput(prompt=prompt)


@given(TEXT, st.sampled_from([[], ["-"]]))
def test_prompt_from_stdin_is_all_of_it(stdin: str, texts: list[str]) -> None:
    assert input_for("completion", texts, stdin) == TaskInput(prompt=stdin)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))), st.booleans())
def test_each_nonblank_line_is_a_text(lines: list[str], final_newline: bool) -> None:
    texts = [line for line in lines if line.strip()]
    stdin = "\n".join(lines) + ("\n" if final_newline else "")
    assert input_for("embedding", [], stdin).inputs == texts
    assert input_for("rerank", ["query"], stdin) == TaskInput("query", texts)


@given(st.lists(WORDS, min_size=1))
def test_text_arguments_are_taken_unchanged(words: list[str]) -> None:
    assert input_for("embedding", words, "x") == TaskInput(inputs=words)
    assert input_for("rerank", ["query", *words], "x") == TaskInput("query", words)


@pytest.mark.parametrize(("workload", "words"), [(None, ["a", "b"]), ("rerank", []), ("rerank", ["-"])])
def test_texts_that_do_not_fit_workload_are_refused(workload: str | None, words: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        input_for(workload, words, "x")
    assert caught.value.status is ExitStatus.USAGE
    assert caught.value.hint
