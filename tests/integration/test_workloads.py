"""Chat, embedding and rerank tasks are placed on engines that serve them. All engines are real llama-servers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.llama_server import Archive
from tests.engines.running import running_engine
from tests.integration.home import Home, environment, free_port, share_unpacked

DAEMONS = ("queen-rbee", "pool-managerd", "engine-provisioner")
POOL = """
[[pools]]
id = "{pool_id}"
model = "file:{model}"
ctx = 512
ports = [{port}]
{keys}
[pools.provisioning]
mode = "binary"
url = "file:{archive.path}"
checksum = "{archive.checksum}"
allow_binary_downloads = true
"""
MANAGED = {
    "chat": 'flags = ["--threads", "1"]',
    "embed-flags": 'flags = ["--threads", "1", "--embeddings"]',
    "embed": 'workloads = ["embedding"]\nflags = ["--threads", "1", "--pooling", "mean"]',
    "both": 'workloads = ["completion", "embedding"]\nflags = ["--threads", "1", "--pooling", "last"]',
    "rank": 'workloads = ["rerank"]\nflags = ["--threads", "1"]',
}
EXTERNAL = '[[pools]]\nid = "foreign"\nprovisioning = {{ mode = "external", url = "{url}" }}\n'
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, llama_server: Path, tiny_model: Path
) -> Iterator[Home]:
    """Five managed pools with one model, and one external embedding engine."""
    directory = tmp_path_factory.mktemp("workloads")
    environ = environment(directory)
    share_unpacked(llama_server_tar, directory / "cache")
    with running_engine(llama_server, tiny_model, flags=("--embeddings", "--pooling", "mean")) as foreign:
        pools = [
            POOL.format(pool_id=pool_id, model=tiny_model, port=free_port(), keys=keys, archive=llama_server_tar)
            for pool_id, keys in MANAGED.items()
        ]
        (directory / "pools.toml").write_text("".join([*pools, EXTERNAL.format(url=foreign.url)]))
        queen, manager = (
            int(environ[name].rpartition(":")[2]) for name in ("ORCHESTRATORD_BIND_ADDR", "POOL_MANAGERD_BIND_ADDR")
        )
        running = Home(directory, environ, queen, manager)
        try:
            for name in DAEMONS:
                running.start(name)
            running.until(lambda: _ready(running) == {*MANAGED, "foreign"})
            yield running
        finally:
            for name in [*running.processes]:
                running.stop(name)


def _ready(running: Home) -> set[str]:
    _status, answer = running.ask("GET", "/v2/pools")
    return {pool["pool_id"] for pool in (answer or {}).get("pools", ()) if pool["ready"]}


def test_capabilities_list_workloads_of_each_pool(home: Home) -> None:
    workloads = {pool["pool_id"]: pool["workloads"] for pool in home.ask("GET", "/v2/meta/capabilities")[1]["pools"]}
    assert workloads == {
        "chat": ["completion"],
        "embed-flags": ["embedding"],
        "embed": ["embedding"],
        "both": ["completion", "embedding"],
        "rank": ["rerank"],
        "foreign": ["embedding"],
    }


def test_chat_without_model_avoids_embedding_engines(home: Home) -> None:
    assert {home.ask("POST", "/v1/chat/completions", CHAT)[0] for _attempt in range(12)} == {200}
    assert _ready(home) == {*MANAGED, "foreign"}
    assert '"engine_failed"' not in home.logs()


def test_shared_model_name_selects_pools_by_workload(home: Home, tiny_model: Path) -> None:
    # the engine without pooling refuses every embedding with 400, so its pool is drained
    home.ask("POST", "/v2/pools/embed-flags/drain", {})
    name = tiny_model.name.removesuffix(".gguf")
    home.until(lambda: any(pool["draining"] for pool in home.ask("GET", "/v2/pools")[1]["pools"]))
    embedding = {"model": name, "input": ["hello", "world"]}
    assert [home.ask("POST", "/v1/embeddings", embedding)[0] for _attempt in range(9)] == [200] * 9
    assert [home.ask("POST", "/v1/chat/completions", {**CHAT, "model": name})[0] for _attempt in range(9)] == [200] * 9
    documents = {"model": name, "query": "hello", "documents": ["world", "hello"]}
    assert [home.ask("POST", "/v1/rerank", documents)[0] for _attempt in range(3)] == [200] * 3


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank_is_served_on_each_of_its_paths(home: Home, path: str) -> None:
    status, answer = home.ask("POST", path, {"model": "rank", "query": "hello", "documents": ["world", "hello"]})
    assert (status, answer["model"], len(answer["results"])) == (200, "rank", 2)
    status, answer = home.ask("POST", path, {"model": "rank", "query": 5, "documents": ["world"]})
    assert (status, answer["error"]["param"]) == (400, "query")


def test_no_answer_reveals_model_path(home: Home, tiny_model: Path) -> None:
    paths = ("/v1/models", "/v2/meta/capabilities", "/v2/pools", "/v2/catalog/availability")
    answers = [home.ask("GET", path)[1] for path in paths]
    answers.append(home.ask("POST", "/v1/embeddings", {"model": "foreign", "input": "hello"})[1])
    answers.append(home.ask("POST", "/v1/embeddings", {"input": "hello"})[1])
    answers.append(home.ask("POST", "/v1/chat/completions", CHAT)[1])
    answers.append(home.ask("POST", "/v2/tasks", {"prompt": "a", "model_ref": "none"})[1])
    assert answers[4]["model"] == "foreign"
    assert str(tiny_model.parent) not in str(answers)


@pytest.mark.parametrize("pool_id", ["embed", "embed-flags", "rank", "foreign"])
def test_chat_with_model_for_other_workload_is_refused(home: Home, pool_id: str) -> None:
    status, answer = home.ask("POST", "/v1/chat/completions", {**CHAT, "model": pool_id})
    assert (status, answer["error"]["param"]) == (400, "model")
    assert "does not serve completion tasks" in answer["error"]["message"]
    assert "Models that do: tiny-" in answer["error"]["message"]


def test_task_for_unsupported_workload_is_refused_at_once(home: Home) -> None:
    pinned = {"mode": "pin", "pin_pool_id": "chat"}
    status, answer = home.ask("POST", "/v2/tasks", {"workload": "embedding", "inputs": ["a"], "placement": pinned})
    assert (status, answer["code"]) == (400, "INVALID_PARAMS")
    assert answer["message"] == "pool chat does not serve embedding tasks, only completion"
