"""Energy of GPUs and of the pools on them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.engines.kind import Slots
from pool_managerd.gpus.energy import EnergyMeter, PowerSample, energy_between, shares
from pool_managerd.pools.devices import Gpu, Gpus
from pool_managerd.pools.replica import HealthAnswer, ProbeResult, Replica
from tests.unit.pool_managerd.values import gpu, replica

BUSY = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0, 1e6), min_size=1)


@pytest.mark.parametrize(
    ("before", "after", "energy_j"),
    [
        (PowerSample(0, 100, None), PowerSample(10, 200, None), 1500.0),
        (PowerSample(0, 100, 5000.0), PowerSample(10, 200, 6200.0), 1200.0),  # the counter knows better
        (PowerSample(0, 100, 5000.0), PowerSample(10, 200, 30.0), 30.0),  # the driver was loaded again
        (PowerSample(0, 100, None), PowerSample(1000, 100, None), 0.0),
        (PowerSample(0, None, None), PowerSample(10, 100, None), 0.0),
        (PowerSample(0, 100, 5.0), PowerSample(10, 100, None), 1000.0),
    ],
)
def test_energy_is_by_counter_or_mean_power(before: PowerSample, after: PowerSample, energy_j: float) -> None:
    assert energy_between(before, after) == energy_j


@given(st.floats(0, 1e9), BUSY)
def test_shares_add_up_to_the_energy(energy_j: float, busy_s: dict[str, float]) -> None:
    parts = shares(energy_j, busy_s)
    assert parts.keys() == busy_s.keys()
    assert sum(parts.values()) == pytest.approx(energy_j)
    assert all(part >= 0 for part in parts.values())


def test_busier_pool_gets_the_larger_share() -> None:
    assert shares(100.0, {"a": 3.0, "b": 1.0}) == {"a": 75.0, "b": 25.0}
    assert shares(100.0, {"a": 0.0, "b": 0.0}) == {"a": 50.0, "b": 50.0}
    assert shares(100.0, {}) == {}


def powered(joules: float, number: int = 0) -> Gpu:
    return replace(gpu(number), power_w=100.0, energy_j=joules)


def on_gpu(pool_id: str, busy_s: float, incarnation: int, mask: str = "0") -> Replica:
    return replace(replica(incarnation=incarnation, pool_id=pool_id, device_mask=mask), busy_slot_s=busy_s)


def test_pools_of_one_gpu_share_its_energy() -> None:
    meter = EnergyMeter()
    meter.add_reading(Gpus((powered(1000.0),)), [on_gpu("a", 10.0, 1), on_gpu("b", 70.0, 2)], 0.0)
    assert (meter.gpus, meter.pools) == ({}, {})  # the first reading is the start
    meter.add_reading(Gpus((powered(1400.0),)), [on_gpu("a", 13.0, 1), on_gpu("b", 71.0, 2)], 5.0)
    assert (meter.gpus, meter.pools) == ({"GPU-0": 400.0}, {"a": 300.0, "b": 100.0})


def test_pool_on_two_gpus_gets_the_energy_of_both() -> None:
    meter = EnergyMeter()
    for joules in (0.0, 50.0):
        meter.add_reading(Gpus((powered(joules), powered(2 * joules, 1))), [on_gpu("a", 0.0, 1, "0,1")], joules)
    assert meter.pools == {"a": 150.0}


def test_pool_on_a_mig_instance_gets_a_share_of_the_gpu() -> None:
    instance = replace(gpu(0), uuid="MIG-a", parent_uuid="GPU-0", mig_index=0)
    meter = EnergyMeter()
    for joules in (0.0, 80.0):
        meter.add_reading(Gpus((powered(joules), instance)), [on_gpu("a", 0.0, 1, "MIG-a")], joules)
    assert (meter.gpus, meter.pools) == ({"GPU-0": 80.0}, {"a": 80.0})


def test_tokens_count_from_the_first_look_on() -> None:
    meter, engine = EnergyMeter(), on_gpu("a", 0.0, 1)
    for counter in (1000, 1500, 200):  # the engine has restarted meanwhile
        meter.add_tokens(engine, counter)
    assert meter.tokens == {"a": 700}
    meter.pools["a"] = 1400.0
    assert meter.per_1000_tokens("a") == 2000.0
    assert meter.per_1000_tokens("b") is None


def test_removed_pools_are_forgotten() -> None:
    meter = EnergyMeter()
    meter.pools, meter.tokens = {"a": 1.0, "gone": 1.0}, {"gone": 1}
    meter.keep_only([on_gpu("a", 0.0, 1)])
    assert (meter.pools, meter.tokens) == ({"a": 1.0}, {})


def test_busy_slot_time_is_added_up_between_probes() -> None:
    ready = ProbeResult(HealthAnswer.READY, slots=Slots(4, 1))
    assert replica(ready, ready, replace(ready, slots=Slots(4, 4)), ready).busy_slot_s == 3 + 3 + 0
