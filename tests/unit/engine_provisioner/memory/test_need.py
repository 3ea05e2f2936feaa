"""The estimate of an engine's memory covers the model, grows with context and slots, and follows tensor_split."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.memory.loads import Load
from engine_provisioner.memory.need import GPU_OVERHEAD, memory_need, split
from engine_provisioner.memory.residency import residency_of
from engine_provisioner.supervise.health_waits import load_limit_s
from tests.unit.engine_provisioner.pools import MODEL, pool

GIB = 1 << 30
LARGE = replace(MODEL, size_bytes=5 * GIB, digest="sha256:1")


@given(st.integers(0, 1 << 45), st.integers(16, 1 << 20), st.integers(1, 64), st.sampled_from([(), (0,), (1, 3)]))
def test_model_fits_into_the_estimate(size: int, ctx: int, slots: int, devices: tuple[int, ...]) -> None:
    model = replace(MODEL, size_bytes=size)
    need = memory_need(pool(ctx=ctx, slots=slots), model, devices)
    assert list(need) == ([str(device) for device in devices] or ["cpu"])
    assert sum(need.values()) > size
    more = memory_need(pool(ctx=ctx, slots=slots + 1), model, devices)
    assert all(more[device] >= need[device] for device in need)


def test_tensor_split_divides_the_model() -> None:
    first, second = memory_need(pool(devices=[0, 1], tensor_split=[3, 1]), LARGE, (0, 1)).values()
    assert (first - GPU_OVERHEAD) == pytest.approx(3 * (second - GPU_OVERHEAD), rel=0.01)


@given(st.integers(0, 1 << 50), st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_parts_of_a_split_are_complete(total: int, weights: list[float]) -> None:
    parts = split(total, weights)
    assert len(parts) == len(weights)
    assert sum(parts) >= total - 1e-9 * total
    assert min(parts) >= 0


def test_measured_devices_replace_their_estimate() -> None:
    spec = pool(devices=[0, 1], keep_alive="5m", pinned=True)
    estimate = residency_of(spec, LARGE, (0, 1), None)
    known = residency_of(spec, LARGE, (0, 1), Load(need_bytes={"0": 3 * GIB, "cpu": GIB}, took_s=2.5, ctx_max=512))
    assert known.need_bytes == {"0": 3 * GIB, "1": estimate.need_bytes["1"], "cpu": GIB}
    assert (estimate.load_s, known.load_s, known.keep_alive_s, known.pinned) == (None, 2.5, 300, True)
    assert known.model is not None
    assert estimate.model is not None
    assert (estimate.model.ctx_max, known.model.ctx_max, known.model.digest) == (4096, 512, "sha256:1")
    assert (known.device_mask, known.slots_total) == ("0,1", 1)


def test_load_may_take_longer_if_the_model_is_large() -> None:
    default, configured = pool().timeouts, pool(timeouts={"wall_ms": 600_000}).timeouts
    assert load_limit_s(default, 50_000_000_000) == 600 + 1000
    assert load_limit_s(configured, 50_000_000_000) == 600
