"""orchctl bench: requests, figures, errors, and its end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchctl.bench.figures import MAX_MESSAGES, Run, Sample, figures, percentile, rate_of
from orchctl.bench.load import prompt
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import CHAT, CHAT_HEAD, HOLD, chat, chat_begun, error, reply, serve
from tests.unit.orchctl.terminal import CTRL_C, terminal

FLOATS = st.lists(st.floats(0, 1e6), min_size=1)


@given(FLOATS, st.floats(0, 100))
def test_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6


def test_percentiles_of_a_hundred_values_are_exact() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert percentile([], 50) is None


def test_figures_of_known_times() -> None:
    run_ = Run(2, [Sample(0, 0.1, 1.1, 10, 11), Sample(1, 1.3, 2.3, 10, 21), Sample(0, None, 1, 5, 0)], seconds=4)
    run_.fail("no")
    found = figures(run_)
    assert (found.requests, found.errors, found.tokens_in, found.tokens_out) == (3, 1, 25, 32)
    assert (found.ttft_p50_ms, found.ttft_p99_ms) == (100, 300)
    assert (found.tokens_per_s, found.tokens_per_s_client) == (8, 10)


def test_run_without_answers_has_no_figures() -> None:
    found = figures(Run(1))
    assert (found.ttft_p50_ms, found.tokens_per_s, found.tokens_per_s_client) == (None, None, None)


@pytest.mark.parametrize("sample", [Sample(0, None, 1, 1, 9), Sample(0, 0.5, 1, 1, 1), Sample(0, 1, 1, 1, 5)])
def test_rate_needs_two_tokens_and_time_between(sample: Sample) -> None:
    assert rate_of(sample) is None


def test_different_errors_are_bounded() -> None:
    run_ = Run(1)
    for number in range(100):
        run_.fail(f"error {number}")
    assert len(run_.errors) == MAX_MESSAGES + 1
    assert sum(run_.errors.values()) == 100


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(1, 300))
def test_prompts_have_length_and_share_no_first_word(one: int, other: int, words: int) -> None:
    assert len(prompt(one, words).split()) == words
    assert (prompt(one, words).split()[0] == prompt(other, words).split()[0]) == (one == other)


def test_table_has_a_row_for_each_number_of_clients() -> None:
    with serve({CHAT: [chat("a", "b")]}) as queen:
        result = run("bench", "tiny", "--clients", "1,3", "--requests", "5", "--tokens", "7", "--url", queen.url)
        bodies = queen.bodies(CHAT)
    assert result.status == 0
    header, *rows = (line.split() for line in result.out.splitlines())
    assert header[:2] == ["CLIENTS", "REQUESTS"]
    assert [row[:3] for row in rows] == [["1", "5", "0"], ["3", "5", "0"]]
    assert len(bodies) == 11, "one request loads the model"
    assert bodies[-1].items() >= {"model": "tiny", "max_tokens": 7, "stream": True, "ignore_eos": True}.items()
    assert len({body["messages"][0]["content"] for body in bodies}) == 11


def test_tokens_are_those_of_usage_not_of_chunks() -> None:
    with serve({CHAT: [chat("a")]}) as queen:
        result = run("bench", "tiny", "--clients", "1", "--requests", "2", "--json", "--url", queen.url)
    (found,) = json.loads(result.out)["runs"]
    assert (found["tokens_in"], found["tokens_out"], found["errors"]) == (18, 4, 0)


def test_failed_requests_are_counted_and_the_rest_measured() -> None:
    busy = error(429, "ADMISSION_REJECT", "the queue is full", retriable=True)
    broken = CHAT_HEAD + b"data: {\n\n"
    with serve({CHAT: [chat("a"), busy, chat_begun("a"), broken, chat("a")]}) as queen:
        result = run("bench", "tiny", "--clients", "1", "--requests", "4", "--url", queen.url)
    assert result.status == 75
    assert result.out.splitlines()[1].split()[:3] == ["1", "1", "3"]
    assert "1 clients: 1 x ADMISSION_REJECT: the queue is full" in result.err
    assert "3 requests failed" in result.err


def test_unknown_model_ends_before_the_first_run() -> None:
    no_model = reply(404, {"error": {"message": "no such model", "type": "invalid_request_error", "code": "m"}})
    with serve({CHAT: [no_model]}) as queen:
        result = run("bench", "nobody", "--url", queen.url)
        assert len(queen.requests) == 1
    assert (result.status, result.out) == (66, "")


def test_refused_token_during_a_run_ends_it() -> None:
    refused = error(401, "BAD_TOKEN", "the token is not the one this daemon has")
    with serve({CHAT: [chat("a"), refused]}) as queen:
        result = run("bench", "tiny", "--clients", "1", "--requests", "1000", "--url", queen.url)
        assert len(queen.requests) == 2
    assert result.status == 77


def test_ctrl_c_cancels_requests_and_prints_complete_runs() -> None:
    answers = [chat("a"), chat("a"), chat_begun("a") + HOLD]
    with serve({CHAT: answers}) as queen:
        with terminal("bench", "tiny", "--clients", "1,2", "--requests", "1", "--url", queen.url) as tty:
            queen.wait_for(CHAT, 3)
            tty.type(CTRL_C)
            assert tty.end() == 130
        queen.wait_until_closed(CHAT)
    assert "CLIENTS" in tty.output.decode()
    assert "Traceback" not in tty.output.decode()


@pytest.mark.parametrize(
    "words",
    [
        *(("--clients", value) for value in ("0", "a", "", "1,", "257", ",".join(["1"] * 17))),
        *(("--tokens", value) for value in ("0", "-1", "1000001", "x", "\u0661")),
        ("--requests", "0"),
        ("--prompt-tokens", "1.5"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(words: tuple[str, str]) -> None:
    assert run("bench", "tiny", *words).status == 64
