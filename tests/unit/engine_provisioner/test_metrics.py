import pytest
from prometheus_client import CollectorRegistry

from engine_provisioner.launch.engine_output import exit_cause, exit_message
from engine_provisioner.metrics import EXIT_CAUSES, Metrics
from llama_orch.contracts.pools import PoolState


def test_pools_are_counted_by_state() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.set_state("a", PoolState.READY, [PoolState.READY, PoolState.FAILED])
    metrics.set_state("a", PoolState.FAILED, [PoolState.FAILED, PoolState.FAILED])
    shown = {state: registry.get_sample_value("provisioner_pools", {"state": state}) for state in PoolState}
    assert {state: count for state, count in shown.items() if count} == {PoolState.FAILED: 2}
    assert registry.get_sample_value("provisioner_pool_state", {"pool_id": "a", "state": "ready"}) == 0


def test_series_of_a_pool_start_at_zero() -> None:
    registry = CollectorRegistry()
    Metrics(registry).add_pool("a")
    for cause in EXIT_CAUSES:
        labels = {"pool_id": "a", "cause": cause}
        assert registry.get_sample_value("provisioner_engine_exits_total", labels) == 0
    assert registry.get_sample_value("provisioner_downloaded_bytes_total", {"pool_id": "a"}) == 0


@pytest.mark.parametrize(
    ("how", "lines", "cause"),
    [
        ("ended with status 1", ["CUDA error: out of memory"], "vram"),
        ("ended with status 1", ["error: invalid argument: --frob"], "ended"),
        ("was killed by SIGSEGV", ["listening"], "killed"),
        ("was killed by SIGKILL, out of memory", [], "oom"),
        ("was stopped", [], "ended"),
    ],
)
def test_exit_cause(how: str, lines: list[str], cause: str) -> None:
    assert exit_cause(exit_message(how, lines)) == cause
