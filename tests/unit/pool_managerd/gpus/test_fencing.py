"""Fences: which faults put them up, and what ends them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_managerd.gpus.faults import Fault
from pool_managerd.gpus.fencing import Fencing, Step, after_fault, after_reading, after_reset, after_unfence
from pool_managerd.gpus.xids import XIDS, Severity
from pool_managerd.pools.devices import Gpu, Gpus, MissingGpu
from tests.unit.pool_managerd.values import gpu

HARD = [code for code, known in XIDS.items() if known.severity is Severity.HARDWARE]
GPU = replace(gpu(0), energy_j=1000.0, recovery="none")
PRESENT = Gpus((GPU,))
LOST = Gpus(missing=(MissingGpu(GPU, "gone", lost=True),))
UNKNOWN = Gpus(problem="silent", missing=(MissingGpu(GPU, "silent", lost=False),))


def fault(code: int, at_s: float = 10.0, recovery: str | None = None) -> Fault:
    return Fault("kernel", code, at_s, uuid=GPU.uuid, recovery=recovery)


def fenced(code: int = 79) -> Fencing:
    return after_fault(Fencing(), GPU, fault(code)).state


def ended(step: Step) -> list[str]:
    return [reason for _fence, reason in step.ended]


@pytest.mark.parametrize("code", HARD)
def test_hardware_fault_fences_with_reason_and_action(code: int) -> None:
    step = after_fault(Fencing(), GPU, fault(code))
    assert step.fenced
    assert f"Xid {code}, {XIDS[code].meaning}" in step.fenced.words
    assert XIDS[code].action in step.fenced.words
    assert f"orchctl gpus unfence {GPU.uuid}" in step.fenced.words


@given(st.integers(0, 100_000).filter(lambda code: code not in HARD))
def test_other_and_unknown_faults_do_not_fence(code: int) -> None:
    assert after_fault(Fencing(), GPU, fault(code)) == Step(Fencing())


def test_second_fault_is_added_to_the_fence() -> None:
    step = after_fault(fenced(48), GPU, fault(95, 20.0))
    assert step.fenced is None
    assert step.state.fences[GPU.uuid].codes == (48, 95)
    assert step.state.fences[GPU.uuid].since_s == 10.0


def test_lost_gpu_that_returns_is_not_fenced_any_more() -> None:
    lost = after_reading(fenced(), LOST, 20.0)
    assert lost.state.fences[GPU.uuid].missing
    assert ended(after_reading(lost.state, PRESENT, 30.0)) == ["the GPU was lost and has returned"]


def test_silent_driver_is_no_loss() -> None:
    step = after_reading(after_reading(fenced(), UNKNOWN, 20.0).state, PRESENT, 30.0)
    assert step.ended == ()
    assert step.state == fenced()


def test_counter_that_starts_again_ends_the_fence() -> None:
    assert after_reading(fenced(48), Gpus((replace(GPU, energy_j=1500.0),)), 20.0).ended == ()
    step = after_reading(fenced(48), Gpus((replace(GPU, energy_j=3.0),)), 20.0)
    assert "counters have started again" in ended(step)[0]


def test_recovery_that_is_no_longer_needed_ends_the_fence() -> None:
    asking = after_reading(fenced(119), Gpus((replace(GPU, recovery="gpu_reset"),)), 20.0)
    assert asking.state.fences[GPU.uuid].recovery == "gpu_reset"
    assert ended(after_reading(asking.state, PRESENT, 30.0)) == ["the driver asks for no recovery any more"]


def test_reset_in_the_log_ends_the_fence_if_it_is_later() -> None:
    assert after_reset(fenced(), GPU.uuid, 9.0, "log").ended == ()
    assert ended(after_reset(fenced(), GPU.uuid, 11.0, "log")) == ["log"]
    assert after_reset(Fencing(), GPU.uuid, 11.0, "log") == Step(Fencing())


@pytest.mark.parametrize("action", ["gpu_reset", "drain_and_reset", "node_reboot"])
def test_recovery_that_the_driver_asks_for_fences(action: str) -> None:
    asking = Gpus((replace(GPU, recovery=action),))
    step = after_reading(Fencing(), asking, 20.0)
    assert step.fenced
    assert step.fenced.codes == (154,)
    decided = after_unfence(step.state, GPU.uuid, action, 30.0).state
    assert after_reading(decided, asking, 40.0) == Step(decided)  # an operator's decision stands
    quiet = after_reading(decided, PRESENT, 50.0).state
    assert after_reading(quiet, asking, 60.0).fenced


def test_peer_to_peer_recovery_does_not_fence() -> None:
    assert after_reading(Fencing(), Gpus((replace(GPU, recovery="drain_p2p"),)), 20.0).fenced is None


def test_operator_ends_a_fence_and_earlier_faults_are_void() -> None:
    step = after_unfence(fenced(), GPU.uuid, None, 20.0)
    assert ended(step) == ["an operator has ended the fence"]
    assert after_fault(step.state, GPU, fault(79, 10.0)) == Step(step.state)
    assert after_fault(step.state, GPU, fault(79, 21.0)).fenced


EVENTS = st.one_of(
    st.tuples(st.just("fault"), st.sampled_from([13, 63, 79, 48, 154, 9999])),
    st.tuples(st.just("reading"), st.sampled_from([PRESENT, LOST, UNKNOWN, Gpus((replace(GPU, energy_j=1.0),))])),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("unfence"), st.none()),
)


@given(st.lists(EVENTS, max_size=25))
def test_fence_holds_until_a_reset_or_an_operator(events: list[tuple[str, object]]) -> None:
    state = Fencing()
    for second, (kind, value) in enumerate(events):
        before, now_s = state, float(second)
        if kind == "fault":
            assert isinstance(value, int)
            step = after_fault(state, GPU, fault(value, now_s))
            assert bool(step.fenced) == (value in HARD and not before.fences)
            assert step.ended == ()
        elif kind == "reading":
            assert isinstance(value, Gpus)
            step = after_reading(state, value, now_s)
            assert not step.ended or value.devices
        elif kind == "reset":
            step = after_reset(state, GPU.uuid, now_s, "log")
            assert not step.state.fences
        else:
            step = after_unfence(state, GPU.uuid, None, now_s)
            assert not step.state.fences
        state = step.state
        assert len(before.fences) + bool(step.fenced) - len(step.ended) == len(state.fences)
        for fence in state.fences.values():
            assert len(fence.codes) <= 8


def test_mig_instances_of_a_fenced_gpu_are_fenced() -> None:
    instance = Gpu(0, "MIG-a", "H100 MIG", 10, 10, None, None, parent_uuid=GPU.uuid, mig_index=0)
    gpus = Gpus((GPU, instance), fences={GPU.uuid: "words"})
    assert gpus.fence_of(instance) == "words"
