"""The estimate of a model's memory: known figures of llama-server, and properties."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.gguf.header import Attention, GgufHeader, Recurrence, Weights
from engine_provisioner.memory.estimate import (
    DEVICE_CONTEXT,
    Estimate,
    Measurement,
    corrected,
    estimate,
    load_key,
)
from engine_provisioner.memory.plan import CACHE_TYPES, LoadPlan

MIB = 1 << 20
HEADER = GgufHeader(
    version=3,
    architecture="llama",
    name=None,
    quantization="F16",
    context_length=65536,
    block_count=4,
    embedding_length=1024,
    feed_forward_length=4096,
    vocabulary_size=32000,
    expert_count=0,
    experts_used=0,
    expert_feed_forward_length=0,
    attention=Attention((16,) * 4, (4,) * 4, 64, 64, 64, 64),
    recurrence=None,
    full_attention_interval=0,
    has_chat_template=False,
    tensor_count=39,
    weights=Weights((28 * MIB,) * 4, 60 * MIB, 62 * MIB, 4096),
    data_offset=0,
    file_bytes=234 * MIB,
    truncated_by=0,
    split_count=0,
    split_no=0,
)
"""The model of 4 layers whose figures, as llama-server logs them, are in MEASURED."""

MEASURED = [
    (LoadPlan(512), 2.0, 34.52),
    (LoadPlan(4096), 16.0, 38.02),
    (LoadPlan(4096, 4), 64.0, 38.02),
    (LoadPlan(16384), 64.0, 50.02),
    (LoadPlan(4096, 2, cache_type_k="q8_0", cache_type_v="q8_0"), 17.0, 38.05),
    (LoadPlan(4096, 2, cache_type_k="q4_0", cache_type_v="q4_0"), 9.0, 38.05),
    (LoadPlan(4096, 2, flash_attention=False), 32.0, 149.01),
    (LoadPlan(16384, flash_attention=False), 64.0, 557.01),
    (LoadPlan(4096, 2, ubatch=128), 32.0, 9.5),
    (LoadPlan(4096, 4, unified=True), 64.0, 50.02),
]
"""Plan, KV cache and compute buffer in MiB, measured with build 11669 on the CPU."""


@pytest.mark.parametrize(("plan", "kv_mib", "compute_mib"), MEASURED)
def test_estimate_matches_log_of_llama_server(plan: LoadPlan, kv_mib: float, compute_mib: float) -> None:
    found = estimate(HEADER, plan)
    assert found.host_kv == kv_mib * MIB
    assert found.host_compute / MIB == pytest.approx(compute_mib, abs=1.5)
    assert (found.device_bytes, found.host_weights) == (0, HEADER.weights.total)


def test_all_layers_on_device_leave_embeddings_on_host() -> None:
    found = estimate(HEADER, LoadPlan(512, gpu_layers=999, devices=1))
    assert (found.device_weights, found.host_weights) == (174 * MIB + 4096, 60 * MIB)
    assert (found.device_kv, found.host_kv, found.device_context) == (2 * MIB, 0, DEVICE_CONTEXT)


def test_last_layers_are_offloaded_first() -> None:
    uneven = replace(HEADER, weights=replace(HEADER.weights, blocks=(MIB, 2 * MIB, 3 * MIB, 4 * MIB)))
    found = estimate(uneven, LoadPlan(512, gpu_layers=1, devices=1))
    assert (found.device_weights, found.device_kv) == (4 * MIB, MIB // 2)


def test_tied_embeddings_are_copied_to_device() -> None:
    tied = replace(HEADER, weights=replace(HEADER.weights, output=0))
    found = estimate(tied, LoadPlan(512, gpu_layers=999, devices=1))
    assert (found.device_weights, found.host_weights) == ((112 + 60) * MIB + 4096, 60 * MIB)


def test_output_in_another_file_is_not_copied() -> None:
    first = replace(HEADER, weights=Weights((28 * MIB,) * 2 + (0, 0), 60 * MIB))
    second = Weights((0, 0, 28 * MIB, 28 * MIB), output=62 * MIB)
    found = estimate(first, LoadPlan(512, gpu_layers=999, devices=1), others=[second])
    assert (found.device_weights, found.host_weights) == ((112 + 62) * MIB, 60 * MIB)


def test_cache_stays_on_host_if_flag_says_so() -> None:
    found = estimate(HEADER, LoadPlan(512, gpu_layers=999, devices=1, kv_on_host=True))
    assert (found.device_kv, found.host_kv) == (0, 2 * MIB)


def test_windowed_layers_keep_window_and_batch() -> None:
    windowed = replace(HEADER.attention, window=1024, windowed=(True, True, True, False))
    found = estimate(replace(HEADER, attention=windowed), LoadPlan(16384))
    assert found.host_kv == (3 * 1536 + 16384) * 4 * 64 * 2 * 2
    full = estimate(replace(HEADER, attention=windowed), LoadPlan(16384, swa_full=True))
    assert full.host_kv == 64 * MIB


def test_known_architecture_supplies_window_pattern() -> None:
    gemma = replace(HEADER, architecture="gemma2", attention=replace(HEADER.attention, window=1024))
    assert estimate(gemma, LoadPlan(16384)).host_kv == (2 * 1536 + 2 * 16384) * 4 * 64 * 2 * 2
    unknown = replace(gemma, architecture="other")
    assert estimate(unknown, LoadPlan(16384)).host_kv == 64 * MIB


def test_recurrent_layers_take_same_memory_at_any_context() -> None:
    mamba = replace(HEADER, attention=Attention(), recurrence=Recurrence(4, 2048, 128, 1))
    state = 4 * (3 * (2048 + 2 * 128) + 2048 * 128)
    assert estimate(mamba, LoadPlan(512, 2)).host_kv == estimate(mamba, LoadPlan(65536, 2)).host_kv == 4 * 2 * state


def test_context_of_model_counts_if_none_is_given() -> None:
    assert estimate(HEADER, LoadPlan(0)) == estimate(HEADER, LoadPlan(65536))


def test_projector_lies_on_device_if_there_is_one() -> None:
    on_host, on_device = LoadPlan(512), LoadPlan(512, gpu_layers=999, devices=1)
    for plan, part in ((on_host, "host_weights"), (on_device, "device_weights")):
        assert getattr(estimate(HEADER, plan, extra_bytes=7), part) - getattr(estimate(HEADER, plan), part) == 7


KEY = load_key("sha256:aa", 1, 512, 1, ())


def test_measurement_of_same_load_replaces_sums() -> None:
    guess = estimate(HEADER, LoadPlan(512, gpu_layers=999, devices=1))
    found = corrected(guess, Measurement(KEY, device_bytes=900 * MIB), KEY)
    assert (found.device_bytes, found.host_bytes, found.measured) == (900 * MIB, guess.host_bytes, True)
    assert found.device_weights == guess.device_weights


def test_measurement_of_another_load_changes_nothing() -> None:
    guess = estimate(HEADER, LoadPlan(512))
    for other in (
        load_key("sha256:bb", 1, 512, 1, ()),
        load_key("sha256:aa", 2, 512, 1, ()),
        load_key("sha256:aa", 1, 513, 1, ()),
        load_key("sha256:aa", 1, 512, 2, ()),
        load_key("sha256:aa", 1, 512, 1, ("-fa",)),
    ):
        assert corrected(guess, Measurement(other, 1, 1), KEY) is guess
    assert corrected(guess, None, KEY) is guess


SMALL = st.integers(0, 64)
ATTENTIONS = st.builds(
    Attention,
    heads=st.lists(SMALL, max_size=6).map(tuple),
    kv_heads=st.lists(SMALL, max_size=6).map(tuple),
    key_length=SMALL,
    value_length=SMALL,
    swa_key_length=SMALL,
    swa_value_length=SMALL,
    window=st.none() | st.integers(1, 4096),
    windowed=st.none() | st.lists(st.booleans(), max_size=6).map(tuple),
    shared_kv_layers=st.integers(0, 9),
)
HEADERS = st.builds(
    replace,
    st.just(HEADER),
    architecture=st.sampled_from(["llama", "gemma2", "gpt-oss"]),
    block_count=st.just(6),
    embedding_length=SMALL,
    feed_forward_length=SMALL,
    expert_feed_forward_length=SMALL,
    experts_used=SMALL,
    vocabulary_size=SMALL,
    attention=ATTENTIONS,
    recurrence=st.none() | st.builds(Recurrence, SMALL, SMALL, SMALL, SMALL),
    full_attention_interval=st.integers(0, 4),
    weights=st.builds(Weights, st.lists(SMALL, min_size=6, max_size=6).map(tuple), SMALL, SMALL, SMALL),
)
PLANS = st.builds(
    LoadPlan,
    ctx=st.integers(1, 1 << 20),
    slots=st.integers(1, 64),
    gpu_layers=st.integers(0, 10),
    devices=st.integers(0, 3),
    cache_type_k=st.sampled_from(sorted(CACHE_TYPES)),
    cache_type_v=st.sampled_from(sorted(CACHE_TYPES)),
    ubatch=st.integers(1, 4096),
    flash_attention=st.booleans(),
    unified=st.booleans(),
    swa_full=st.booleans(),
    kv_on_host=st.booleans(),
)


def parts(found: Estimate) -> list[int]:
    return [value for value in vars(found).values() if not isinstance(value, bool)]


@given(HEADERS, PLANS, st.integers(1, 4096), st.integers(1, 8))
def test_more_context_or_slots_never_need_less(header: GgufHeader, plan: LoadPlan, tokens: int, slots: int) -> None:
    before = parts(estimate(header, plan))
    assert all(part >= 0 for part in before)
    for larger in (replace(plan, ctx=plan.ctx + tokens), replace(plan, slots=plan.slots + slots)):
        assert all(now >= then for now, then in zip(parts(estimate(header, larger)), before, strict=True))


@given(HEADERS, PLANS, st.integers(1, 8))
def test_more_offloaded_layers_never_need_less_of_device(header: GgufHeader, plan: LoadPlan, layers: int) -> None:
    more = estimate(header, replace(plan, gpu_layers=plan.gpu_layers + layers))
    assert more.device_bytes >= estimate(header, plan).device_bytes


@given(HEADERS, PLANS, SMALL, SMALL)
def test_more_layers_of_model_never_need_less(header: GgufHeader, plan: LoadPlan, size: int, heads: int) -> None:
    header = replace(header, attention=replace(header.attention, kv_heads=(heads,) * 6, shared_kv_layers=0))
    longer = replace(
        header,
        block_count=7,
        attention=replace(header.attention, kv_heads=(heads,) * 7),
        weights=replace(header.weights, blocks=(*header.weights.blocks, size)),
    )
    before, after = estimate(header, plan), estimate(longer, plan)
    assert after.device_weights + after.host_weights >= before.device_weights + before.host_weights - copied(header)
    assert after.device_kv + after.host_kv >= before.device_kv + before.host_kv


def copied(header: GgufHeader) -> int:
    """The copy of tied embeddings, which is not made if a layer more leaves the output on the host."""
    return 0 if header.weights.output else header.weights.input


@given(HEADERS, PLANS, st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_correction_has_measured_sums(header: GgufHeader, plan: LoadPlan, device: int, host: int) -> None:
    found = corrected(estimate(header, plan), Measurement(KEY, device, host), KEY)
    assert (found.device_bytes, found.host_bytes) == (device, host)
    assert all(part >= 0 for part in parts(found))
