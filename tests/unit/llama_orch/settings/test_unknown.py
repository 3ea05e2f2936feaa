"""Detection of unknown variables."""

import pytest

from llama_orch.settings.suite import VARIABLES
from llama_orch.settings.unknown import unknown
from tools.generate import DAEMONS


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ORCHESTRATORD_BIND_ADDRESS", "ORCHESTRATORD_BIND_ADDR"),
        ("ORCHESTRATOR_URL", "ORCHESTRATORD_URL"),
        ("ORCHD_QUEUE_CAPACITY", "ORCHD_ADMISSION_CAPACITY"),
        ("POOL_MANAGER_NODE_ID", "POOL_MANAGERD_NODE_ID"),
        ("POOL_MANAGERD_HEARTBEAT_INTERVAL_MS", "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS"),
        ("ENGINE_PROVISIONER_GPUMASK", "ENGINE_PROVISIONER_GPU_MASK"),
        ("LLORCH_API_TOKEN_FIEL", "LLORCH_API_TOKEN_FILE"),
        ("LLAMA_ORCH_LOGFORMAT", "LLAMA_ORCH_LOG_FORMAT"),
    ],
)
def test_misspelt_variable_is_named_with_suggestion(name: str, meant: str) -> None:
    assert list(unknown({name: "x"})) == [f"{name} (did you mean {meant}?)"]


def test_dissimilar_variable_is_named_alone() -> None:
    assert list(unknown({"LLORCHZZZZZZZZZZZZZZZZZZZZZZZZ": "x"})) == ["LLORCHZZZZZZZZZZZZZZZZZZZZZZZZ"]


def test_other_prefixes_are_ignored() -> None:
    others = ("PATH", "HOME", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "MALLOC_ARENA_MAX", "INVOCATION_ID", "RUST_LOGS")
    assert list(unknown(dict.fromkeys(others, "x"))) == []


def test_empty_variable_is_unset() -> None:
    assert list(unknown({"ORCHD_NONSENSE": ""})) == []


def test_shared_environment_has_no_unknown_variables() -> None:
    declared = {var.env for settings in DAEMONS.values() for var in settings.variables().values()}
    assert set(VARIABLES) == declared
    assert list(unknown(dict.fromkeys(declared, "x"))) == []
