"""How full a KV cache is by what engines of each kind tell, and that they may tell anything."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.engines.kv_cache import TOKENS_LIMIT, is_unified, llama_server_usage, vllm_usage

IDLE = st.fixed_dictionaries(
    {"is_processing": st.just(False), "n_ctx": st.integers(1, TOKENS_LIMIT)},
    optional={"n_prompt_tokens": st.integers(0, TOKENS_LIMIT)},
)
WORKING = st.fixed_dictionaries(
    {
        "is_processing": st.just(True),
        "n_ctx": st.integers(1, TOKENS_LIMIT),
        "n_prompt_tokens": st.integers(0, TOKENS_LIMIT),
    }
)
ODD: list[object] = [
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
    return llama_server_usage(json.dumps(slots).encode(), flags)


def two_slots(n_ctx: int) -> list[dict[str, Any]]:
    """As llama-server tells of them: one works, one keeps the tokens of an earlier request."""
    return [
        {"id": 0, "is_processing": True, "n_ctx": n_ctx, "n_prompt_tokens": 512},
        {"id": 1, "is_processing": False, "n_ctx": n_ctx, "n_prompt_tokens": 700},
    ]


def test_the_tokens_of_requests_in_work_count_of_the_room_of_all_slots() -> None:
    assert usage(two_slots(1024)) == 0.25


def test_slots_that_share_one_cache_have_its_room_together_once() -> None:
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
def test_of_what_flags_say_of_the_cache_the_last_counts(flags: list[str], unified: bool) -> None:
    assert is_unified(flags) == unified


@given(st.lists(IDLE | WORKING, min_size=1), FLAGS)
def test_the_cache_in_use_is_from_none_of_it_to_all(slots: list[dict[str, Any]], flags: list[str]) -> None:
    told = usage(slots, *flags)
    assert told is not None
    assert 0 <= told <= 1
    assert (told > 0) == any(slot["is_processing"] and slot["n_prompt_tokens"] for slot in slots)
    assert (usage(slots, "-kvu") or 0.0) >= (usage(slots) or 0.0)


@given(st.lists(IDLE | WORKING), st.sampled_from(ODD))
def test_with_a_slot_that_does_not_tell_nothing_is_told(slots: list[object], odd: object) -> None:
    assert usage([*slots, odd]) is None


@given(st.binary(max_size=100) | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_any_answer_is_borne(body: bytes) -> None:
    assert llama_server_usage(body, ()) is None
    assert vllm_usage(body) is None


@pytest.mark.parametrize(
    ("metrics", "told"),
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
def test_of_vllm_its_own_gauge_is_taken_by_its_newer_name_first(metrics: bytes, told: float | None) -> None:
    assert vllm_usage(metrics) == told


@given(st.floats(), st.text(st.characters(exclude_characters="\n")))
def test_whatever_value_vllm_tells_is_from_0_to_1_or_not_told(value: float, label: str) -> None:
    told = vllm_usage(f'vllm:kv_cache_usage_perc{{model_name="{label}"}} {value}\n'.encode(errors="replace"))
    assert told is None or 0 <= told <= 1
