"""The body of POST /v2/tasks from the options of the command line."""

import argparse
import json
from typing import Literal, get_args, get_origin

import pytest

from llama_orch.contracts.engines import engine_kinds
from llama_orch.contracts.tasks import PlacementWish, TaskRequest
from orchctl.parser import build_parser
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
    "wait_s": ("--wait 0", 0),
    "expected_tokens": ("--expected-tokens 8", 8),
    "kv_hint": ("--kv-hint reuse", "reuse"),
    "keep_alive": ("--keep-alive 5m", "5m"),
    "temperature": ("--temperature 0.5", 0.5),
    "top_p": ("--top-p 0.9", 0.9),
    "top_k": ("--top-k 40", 40),
    "min_p": ("--min-p 0.1", 0.1),
    "repeat_penalty": ("--repeat-penalty 1.1", 1.1),
    "stop": ("--stop a --stop b", ["a", "b"]),
    "output_mode": ("--output-mode json", "json"),
}
"""The fields that are sent unchanged, with their option and value."""


def sent(*words: str, stdin: str = "") -> dict[str, object]:
    """Return the body that `orchctl submit` sends, validated against the contract."""
    with serve(submitting(accepted=reply(202, ACCEPTED))) as queen:
        result = run("submit", "--detach", *words, "--url", queen.url, stdin=stdin)
        assert result.status == 0, result.err
        body: dict[str, object]
        (body,) = queen.bodies("POST /v2/tasks")
    TaskRequest.model_validate_json(json.dumps(body))
    return body


def test_body_has_only_given_fields() -> None:
    assert sent("x") == {"prompt": "x", "priority": "interactive"}


def test_every_field_has_an_option() -> None:
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
def test_placement_options(words: str, placement: dict[str, object]) -> None:
    assert sent("x", *words.split())["placement"] == placement


def test_every_placement_field_has_an_option() -> None:
    words = ["--pool", "a", "--prefer-pool", "b", "--avoid-pool", "c", "--device-mask", "cpu", "--no-fallback"]
    placement = sent("x", *words)["placement"]
    assert isinstance(placement, dict)
    assert set(placement) == set(PlacementWish.model_fields)


def test_choices_match_contract() -> None:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    choices = {action.dest: set(action.choices) for action in commands.choices["submit"]._actions if action.choices}
    allowed = {name: _literals(field.annotation) for name, field in TaskRequest.model_fields.items()}
    allowed["engine"] = set(engine_kinds())
    assert choices == {name: words for name, words in allowed.items() if words}


def _literals(annotation: object) -> set[str]:
    """Return the values of a Literal, or of an optional Literal."""
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
def test_texts_come_from_arguments_or_stdin_lines(words: list[str], stdin: str, texts: dict[str, object]) -> None:
    body = sent(*words, stdin=stdin)
    assert {name: body[name] for name in ("prompt", "inputs") if name in body} == texts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["two", "prompts"], "Quote it"),
        (["--workload", "rerank"], "requires a query"),
        (["--workload", "rerank", "-"], "requires a query"),
        (["x", "--temperature", "nan"], "nan is not a finite number"),
        (["x", "--top-p", "inf"], "inf is not a finite number"),
        (["x", "--pool", ""], "an id cannot be empty"),
        (["x", "--workload", "poem"], "invalid choice"),
    ],
)
def test_misuse_sends_no_request(words: list[str], message: str) -> None:
    with serve({}) as queen:
        result = run("submit", *words, "--url", queen.url)
        assert not queen.requests
    assert (result.status, result.out) == (64, "")
    assert message in result.err
