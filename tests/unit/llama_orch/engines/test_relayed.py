"""The relay's allow-list: what the queen's adapters send passes, and nothing else, however it is written."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_orch.contracts.engines import health_path
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.relayed import PATHS, relayed
from queen_rbee.engines import ADAPTERS
from queen_rbee.engines.passage import WORKLOADS, Passage

METHODS = st.sampled_from(["POST", "post", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "POST "])
STATEFUL = [
    "/slots/0?action=erase",
    "/slots/0?action=save",
    "/lora-adapters",
    "/props",
    "/models/load",
    "/models/unload",
    "/metrics",
    "/v1/load_lora_adapter",
    "/sleep",
    "/reset_prefix_cache",
    "/v2/repository/models/m/unload",
    "/v2/models/m/infer",
    "/v2/models/m/versions/1/generate_stream",
]
ALLOWED = [(engine, path.replace("{model}", "m")) for engine, paths in PATHS.items() for path in paths]
PIECES = [
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    "%2f",
    "%2F",
    "%252f",
    "%5c",
    "\\",
    "?",
    "?action=erase",
    "#",
    ";",
    "\n",
    "%00",
]
PIECES += [
    "slots/0",
    "lora-adapters",
    "completion",
    "COMPLETION",
    "v1/chat/completions",
    "V1/embeddings",
    "/v2/models/",
]
PIECES += ["m", "%6d", "generate_stream", "/generate_stream", "props"]


@pytest.mark.parametrize("engine", sorted(ADAPTERS))
@pytest.mark.parametrize("model", ["m", "org/model 1", "ensemble%", "\u00e9"])
def test_what_an_adapter_sends_is_passed_on(engine: str, model: str) -> None:
    adapter = ADAPTERS[engine]
    for endpoint in adapter.endpoints:
        passage = None if endpoint == "completion" else Passage(endpoint, {"input": "a", "messages": []}, 1)
        if engine == "triton" and ("/" in model or "%" in model):
            continue  # no name of a Triton model: they are directories
        path = adapter.dialogue(TaskRequest(prompt="a"), passage, model).path
        assert relayed(engine, "POST", path) == WORKLOADS[endpoint]


@pytest.mark.parametrize("engine", sorted(PATHS))
@pytest.mark.parametrize("target", STATEFUL)
def test_no_endpoint_that_changes_or_tells_state_is_passed_on(engine: str, target: str) -> None:
    assert {relayed(engine, method, target) for method in ("GET", "POST", "PUT", "DELETE")} == {None}


@given(st.sampled_from(sorted(PATHS)), METHODS, st.lists(st.sampled_from(PIECES), max_size=8))
@example("triton", "POST", ["/v2/models/", "..", "%2f", "..", "/generate_stream"])
@example("triton", "POST", ["/v2/models/", "%252f", "/generate_stream"])
@example("llamacpp", "POST", ["/", "completion", "?action=erase"])
def test_no_way_of_writing_a_path_passes_the_list(engine: str, method: str, pieces: list[str]) -> None:
    target = "".join(pieces)
    if relayed(engine, method, target) is None or (method, target) == ("GET", health_path(engine)):
        return
    assert method == "POST"
    meant = target
    for _turn in range(4):
        meant = unquote(meant)
    known = [re.sub(re.escape("{model}"), "[^/\\\\\\\\?#]+", path) for path in PATHS[engine]]
    assert any(re.fullmatch(path, meant) for path in known)
    assert not {".", ".."} & set(meant.split("/"))


@given(st.sampled_from(ALLOWED), st.data())
def test_an_allowed_path_with_anything_added_is_another_one(allowed: tuple[str, str], data: st.DataObject) -> None:
    engine, path = allowed
    place = data.draw(st.integers(0, len(path)))
    added = data.draw(
        st.sampled_from(["/", "//", "/.", "/..", "%2f", "?x", "?action=erase", "#", ";x", " ", "\t", "%00", "\\"])
    )
    assert relayed(engine, "POST", path) is not None
    assert relayed(engine, "POST", path[:place] + added + path[place:]) is None
    assert relayed(engine, "POST", path.upper()) is None


@pytest.mark.parametrize("engine", sorted(PATHS))
def test_health_check_of_the_queen_is_passed_on(engine: str) -> None:
    assert relayed(engine, "GET", health_path(engine)) == "health"
    assert relayed(engine, "POST", health_path(engine)) is None
    assert relayed(engine, "GET", health_path(engine) + "/") is None
    assert [path for path in ("/health", "/v1/models") if relayed(engine, "GET", path)] in ([], [health_path(engine)])


def test_an_engine_of_an_unknown_kind_gets_nothing() -> None:
    assert relayed("future", "POST", "/v1/chat/completions") is None
