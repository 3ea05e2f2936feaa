"""The relay's allow-list: what the queen's adapters send is passed on, and nothing else, however it is written."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines import KINDS, health_path
from llama_orch.engines.relay_paths import relay_purpose
from llama_orch.engines.wire.adapters import adapters
from llama_orch.engines.wire.passage import WORKLOADS, Passage

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
ALLOWED = [(engine, path.replace("{model}", "m")) for engine, kind in KINDS.items() for path in kind.relay_paths]
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


@pytest.mark.parametrize("engine", sorted(KINDS))
@pytest.mark.parametrize("model", ["m", "org/model 1", "ensemble%", "\u00e9"])
def test_requests_of_adapters_are_passed_on(engine: str, model: str) -> None:
    adapter = adapters()[engine]
    for endpoint in adapter.endpoints:
        passage = None if endpoint == "completion" else Passage(endpoint, {"input": "a", "messages": []}, 1)
        if engine == "triton" and ("/" in model or "%" in model):
            continue  # Triton models are directories and cannot have such names
        path = adapter.call(TaskRequest(prompt="a"), passage, model).path
        assert relay_purpose(engine, "POST", path) == WORKLOADS[endpoint]


@pytest.mark.parametrize("engine", sorted(KINDS))
@pytest.mark.parametrize("target", STATEFUL)
def test_administrative_endpoints_are_not_passed_on(engine: str, target: str) -> None:
    assert {relay_purpose(engine, method, target) for method in ("GET", "POST", "PUT", "DELETE")} == {None}


@given(st.sampled_from(sorted(KINDS)), METHODS, st.lists(st.sampled_from(PIECES), max_size=8))
@example("triton", "POST", ["/v2/models/", "..", "%2f", "..", "/generate_stream"])
@example("triton", "POST", ["/v2/models/", "%252f", "/generate_stream"])
@example("llamacpp", "POST", ["/", "completion", "?action=erase"])
def test_encoding_does_not_bypass_the_allow_list(engine: str, method: str, pieces: list[str]) -> None:
    target = "".join(pieces)
    if relay_purpose(engine, method, target) is None or (method, target) == ("GET", health_path(engine)):
        return
    assert method == "POST"
    meant = target
    for _turn in range(4):
        meant = unquote(meant)
    known = [re.sub(re.escape("{model}"), "[^/\\\\\\\\?#]+", path) for path in KINDS[engine].relay_paths]
    assert any(re.fullmatch(path, meant) for path in known)
    assert not {".", ".."} & set(meant.split("/"))


@given(st.sampled_from(ALLOWED), st.data())
def test_modified_allowed_path_is_not_passed_on(allowed: tuple[str, str], data: st.DataObject) -> None:
    engine, path = allowed
    place = data.draw(st.integers(0, len(path)))
    added = data.draw(
        st.sampled_from(["/", "//", "/.", "/..", "%2f", "?x", "?action=erase", "#", ";x", " ", "\t", "%00", "\\"])
    )
    assert relay_purpose(engine, "POST", path) is not None
    assert relay_purpose(engine, "POST", path[:place] + added + path[place:]) is None
    assert relay_purpose(engine, "POST", path.upper()) is None


@pytest.mark.parametrize("engine", sorted(KINDS))
def test_health_check_is_passed_on(engine: str) -> None:
    assert relay_purpose(engine, "GET", health_path(engine)) == "health"
    assert relay_purpose(engine, "POST", health_path(engine)) is None
    assert relay_purpose(engine, "GET", health_path(engine) + "/") is None
    assert [path for path in ("/health", "/v1/models") if relay_purpose(engine, "GET", path)] in (
        [],
        [health_path(engine)],
    )


def test_unknown_kind_is_not_relayed() -> None:
    assert relay_purpose("future", "POST", "/v1/chat/completions") is None
