"""From the command line to the body of POST /v2/tasks."""

import argparse
import json
from typing import Literal, get_args, get_origin

import pytest

from llama_orch.contracts.tasks import PlacementWish, TaskRequest
from orchctl.run import parser
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import ACCEPTED, reply, serve, submitting

SESSION = "5b1f2f0e-5f5c-4d1e-8f6b-9c2f6a1d3e77"
GIVEN: dict[str, tuple[str, object]] = {
    "task_id": (f"--task-id {SESSION}", SESSION),
    "session_id": (f"--session {SESSION}", SESSION),
    "workload": ("--workload completion", "completion"),
    "model_ref": ("--model m.gguf", "m.gguf"),
    "engine": ("--engine vllm", "vllm"),
    "ctx": ("--ctx 100", 100),
    "priority": ("--priority batch", "batch"),
    "seed": ("--seed 7", 7),
    "determinism": ("--determinism strict", "strict"),
    "max_tokens": ("--max-tokens 9", 9),
    "deadline_ms": ("--deadline-ms 5000", 5000),
    "expected_tokens": ("--expected-tokens 8", 8),
    "kv_hint": ("--kv-hint reuse", "reuse"),
    "temperature": ("--temperature 0.5", 0.5),
    "top_p": ("--top-p 0.9", 0.9),
    "top_k": ("--top-k 40", 40),
    "min_p": ("--min-p 0.1", 0.1),
    "repeat_penalty": ("--repeat-penalty 1.1", 1.1),
    "stop": ("--stop a --stop b", ["a", "b"]),
    "output_mode": ("--output-mode json", "json"),
}
"""Each field that is passed on as it is, its option, and what is sent."""


def sent(*words: str, stdin: str = "") -> dict[str, object]:
    """What `orchctl submit` hands in, accepted by the contract."""
    with serve(submitting(accepted=reply(202, ACCEPTED))) as queen:
        result = run("submit", "--detach", *words, "--url", queen.url, stdin=stdin)
        assert result.status == 0, result.err
        body: dict[str, object]
        (body,) = queen.bodies("POST /v2/tasks")
    TaskRequest.model_validate_json(json.dumps(body))
    return body


def test_nothing_is_sent_that_was_not_given() -> None:
    assert sent("x") == {"prompt": "x", "priority": "interactive"}


def test_every_field_has_its_option() -> None:
    words = " ".join(words for words, _ in GIVEN.values()).split()
    assert sent("x", *words) == {"prompt": "x", **{name: value for name, (_, value) in GIVEN.items()}}
    assert {*GIVEN, "prompt", "inputs", "placement"} == set(TaskRequest.model_fields)


@pytest.mark.parametrize(
    ("words", "placement"),
    [
        ("--pool a", {"mode": "pin", "pin_pool_id": "a"}),
        ("--prefer-pool a --prefer-pool b", {"mode": "prefer", "prefer_pools": ["a", "b"]}),
        ("--prefer-pool a --no-fallback", {"mode": "prefer", "prefer_pools": ["a"], "allow_fallback": False}),
        ("--avoid-pool a --device-mask 0,1", {"avoid_pools": ["a"], "require_device_mask": "0,1"}),
        ("--pool a --prefer-pool b", {"mode": "pin", "pin_pool_id": "a", "prefer_pools": ["b"]}),
    ],
)
def test_where_it_runs(words: str, placement: dict[str, object]) -> None:
    assert sent("x", *words.split())["placement"] == placement


def test_every_field_of_a_placement_can_be_said() -> None:
    words = ["--pool", "a", "--prefer-pool", "b", "--avoid-pool", "c", "--device-mask", "cpu", "--no-fallback"]
    placement = sent("x", *words)["placement"]
    assert isinstance(placement, dict)
    assert set(placement) == set(PlacementWish.model_fields)


def test_choices_are_those_of_the_contract() -> None:
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    choices = {action.dest: set(action.choices) for action in commands.choices["submit"]._actions if action.choices}
    allowed = {name: _literals(field.annotation) for name, field in TaskRequest.model_fields.items()}
    assert choices == {name: words for name, words in allowed.items() if words}


def _literals(annotation: object) -> set[str]:
    """The words of a Literal, or of a Literal that may be None."""
    parts = [annotation, *get_args(annotation)]
    return {word for part in parts if get_origin(part) is Literal for word in get_args(part)}


@pytest.mark.parametrize(
    ("words", "stdin", "texts"),
    [
        ([], "a\nb\n", {"prompt": "a\nb\n"}),
        (["-"], "a", {"prompt": "a"}),
        (["--workload", "embedding", "a", "b"], "", {"inputs": ["a", "b"]}),
        (["--workload", "embedding"], "a b\n\n c\n", {"inputs": ["a b", " c"]}),
        (["--workload", "embedding", "-"], "a", {"inputs": ["a"]}),
        (["--workload", "rerank", "q", "a", "b"], "", {"prompt": "q", "inputs": ["a", "b"]}),
        (["--workload", "rerank", "q"], "a\u2028b\nc\n", {"prompt": "q", "inputs": ["a\u2028b", "c"]}),
    ],
)
def test_texts_come_from_the_command_line_or_line_by_line(
    words: list[str], stdin: str, texts: dict[str, object]
) -> None:
    body = sent(*words, stdin=stdin)
    assert {name: body[name] for name in ("prompt", "inputs") if name in body} == texts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["two", "prompts"], "quotes"),
        (["--workload", "rerank"], "needs the query"),
        (["--workload", "rerank", "-"], "needs the query"),
        (["x", "--temperature", "nan"], "nan is no finite number"),
        (["x", "--top-p", "inf"], "inf is no finite number"),
        (["x", "--pool", ""], "an empty text is no id"),
        (["x", "--workload", "poem"], "invalid choice"),
    ],
)
def test_what_makes_no_sense_asks_the_queen_nothing(words: list[str], said: str) -> None:
    with serve({}) as queen:
        result = run("submit", *words, "--url", queen.url)
        assert not queen.asked
    assert (result.status, result.out) == (64, "")
    assert said in result.err
