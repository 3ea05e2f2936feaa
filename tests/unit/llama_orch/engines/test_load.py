"""KV cache usage as each kind of engine reports it; answers of any shape are tolerated."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.engines import llamacpp, vllm
from llama_orch.engines.llamacpp import TOKENS_LIMIT, has_unified_cache
from llama_orch.engines.prometheus_text import total

IDLE = st.fixed_dictionaries(
    {"is_processing": st.just(False), "n_ctx": st.integers(1, TOKENS_LIMIT)},
    optional={"n_prompt_tokens": st.integers(0, TOKENS_LIMIT)},
)
BUSY = st.fixed_dictionaries(
    {
        "is_processing": st.just(True),
        "n_ctx": st.integers(1, TOKENS_LIMIT),
        "n_prompt_tokens": st.integers(0, TOKENS_LIMIT),
    }
)
INCOMPLETE: list[object] = [
    {"is_processing": True},
    {"is_processing": True, "n_ctx": 5},
    {"is_processing": True, "n_ctx": 0, "n_prompt_tokens": 1},
    {"is_processing": True, "n_ctx": 5, "n_prompt_tokens": -1},
    {"is_processing": True, "n_ctx": 5, "n_prompt_tokens": 10**400},
    {"is_processing": True, "n_ctx": 10**400, "n_prompt_tokens": 5},
    {"is_processing": True, "n_ctx": "all", "n_prompt_tokens": 5},
    {"n_ctx": 5},
    7,
]
FLAGS = st.lists(st.sampled_from(["-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified", "-c", "1024"]))
GAUGE = b"""# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="a} 9 b"} 0.25
"""


def usage(slots: object, *flags: str) -> float | None:
    return llamacpp.kv_usage(json.dumps(slots).encode(), flags)


def two_slots(n_ctx: int) -> list[dict[str, Any]]:
    """One slot is busy, the other keeps the tokens of an earlier request."""
    return [
        {"id": 0, "is_processing": True, "n_ctx": n_ctx, "n_prompt_tokens": 512},
        {"id": 1, "is_processing": False, "n_ctx": n_ctx, "n_prompt_tokens": 700},
    ]


def test_kv_usage_counts_tokens_of_running_requests() -> None:
    assert usage(two_slots(1024)) == 0.25


def test_unified_cache_is_counted_once() -> None:
    assert usage(two_slots(1024), "-c", "1024", "--kv-unified") == 0.5


@pytest.mark.parametrize(
    ("flags", "unified"),
    [
        ([], False),
        (["-np", "2", "-kvu"], True),
        (["--kv-unified"], True),
        (["-kvu", "--no-kv-unified"], False),
        (["-no-kvu", "-kvu", "-c", "512"], True),
    ],
)
def test_last_cache_flag_counts(flags: list[str], unified: bool) -> None:
    assert has_unified_cache(flags) == unified


@given(st.lists(IDLE | BUSY, min_size=1), FLAGS)
def test_kv_usage_is_between_0_and_1(slots: list[dict[str, Any]], flags: list[str]) -> None:
    found = usage(slots, *flags)
    assert found is not None
    assert 0 <= found <= 1
    assert (found > 0) == any(slot["is_processing"] and slot["n_prompt_tokens"] for slot in slots)
    assert (usage(slots, "-kvu") or 0.0) >= (usage(slots) or 0.0)


@given(st.lists(IDLE | BUSY), st.sampled_from(INCOMPLETE))
def test_kv_usage_is_unknown_with_an_incomplete_slot(slots: list[object], incomplete: object) -> None:
    assert usage([*slots, incomplete]) is None


@given(st.binary(max_size=100) | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_malformed_answers_are_tolerated(body: bytes) -> None:
    assert llamacpp.kv_usage(body, ()) is None
    assert vllm.kv_usage(body) is None


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (GAUGE, 0.25),
        (GAUGE.replace(b":kv_", b":gpu_"), 0.25),
        (GAUGE.replace(b":kv_", b":gpu_").replace(b"0.25", b"0.75") + GAUGE, 0.25),
        (GAUGE + b'vllm:kv_cache_usage_perc{engine="1"} 0.75 1700000000000\n', 0.5),
        (b"vllm:kv_cache_usage_perc 1e-1\n", 0.1),
        (b"vllm:kv_cache_usage_perc 7\n", 1.0),
        (b"vllm:kv_cache_usage_perc -7\n", 0.0),
        (b"vllm:kv_cache_usage_perc NaN\n", None),
        (b"vllm:kv_cache_usage_perc +Inf\n", None),
        (b"vllm:kv_cache_usage_perc full\n", None),
        (b"vllm:kv_cache_usage_perc\n0.5\n", None),
        (b"vllm:kv_cache_usage_percent 0.5\n# vllm:kv_cache_usage_perc 0.5\n", None),
        (b"", None),
    ],
)
def test_vllm_gauge_is_read_by_its_newer_name_first(metrics: bytes, expected: float | None) -> None:
    assert vllm.kv_usage(metrics) == expected


@given(st.floats(), st.text(st.characters(exclude_characters="\n")))
def test_vllm_usage_is_clamped_or_unknown(value: float, label: str) -> None:
    found = vllm.kv_usage(f'vllm:kv_cache_usage_perc{{model_name="{label}"}} {value}\n'.encode(errors="replace"))
    assert found is None or 0 <= found <= 1


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (b"# TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total 1536\n", 1536),
        (b'llamacpp:tokens_predicted_total{model="a"} 1e3\nllamacpp:tokens_predicted_total{model="b"} 24\n', 1024),
        (b"llamacpp:tokens_predicted_total -7\n", 0),
        (b"llamacpp:tokens_predicted_total NaN\nllamacpp:tokens_predicted_total 1e400\n", None),
        (b"llamacpp:tokens_predicted_seconds 3\n", None),
        (b"", None),
    ],
)
def test_generated_tokens_are_the_sum_of_a_counter(metrics: bytes, expected: int | None) -> None:
    assert total(b"llamacpp:tokens_predicted_total", metrics) == expected
