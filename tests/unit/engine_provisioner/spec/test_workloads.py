"""Declared workloads decide the engine's options; contradictions with the flags are refused."""

from pathlib import Path
from typing import Any

import pytest

from engine_provisioner.launch.command import engine_command
from engine_provisioner.spec.pools_file import PoolsFileError, parse
from engine_provisioner.spec.workloads import expected, served
from tests.unit.engine_provisioner.pools import MODEL, engine, pool

EXTERNAL = {"mode": "external", "url": "http://127.0.0.1:9000"}
FILE = """[[pools]]
id = "a"
model = "file:/srv/model.gguf"
workloads = {workloads}
flags = {flags}
env = {env}
provisioning = {{ mode = "package", name = "llama.cpp", allow_package_installs = true }}
"""


def argv(**keys: Any) -> tuple[str, ...]:
    """The engine's command line."""
    known = engine("--embeddings", "--embedding", "--reranking", "--rerank")
    return engine_command(pool(**keys), known, MODEL, port=1, devices=(), cache_ram_mib=0).argv


@pytest.mark.parametrize(
    ("workloads", "flags", "options"),
    [
        (None, [], []),
        (["completion"], [], []),
        (["embedding"], [], ["--embeddings"]),
        (["embedding"], ["--embedding"], ["--embedding"]),
        (["rerank"], [], ["--reranking"]),
    ],
)
def test_declared_workload_becomes_an_option(workloads: list[str] | None, flags: list[str], options: list[str]) -> None:
    found = [word for word in argv(workloads=workloads, flags=flags) if "embed" in word or "rank" in word]
    assert found == options


@pytest.mark.parametrize(
    ("workloads", "flags", "env", "problem"),
    [
        ('["completion"]', '["--embeddings"]', "{}", "completion contradicts --embeddings"),
        ('["completion", "embedding"]', "[]", "{}", "completion contradicts --embeddings"),
        ('["completion"]', "[]", '{ LLAMA_ARG_EMBEDDINGS = "1" }', "completion contradicts --embeddings"),
        ('["embedding", "rerank"]', "[]", "{}", "use two pools"),
        ('["embedding"]', '["--reranking"]', "{}", "embedding contradicts the flags"),
        ('["completion"]', '["--embeddings", "--pooling", "mean"]', "{}", "does not name embedding"),
        ('["embedding", "embedding"]', "[]", "{}", "contains a value twice"),
        ('["chat"]', "[]", "{}", "invalid value 'chat' (allowed: completion, embedding or rerank)"),
        ("[]", "[]", "{}", "at least 1 element"),
    ],
)
def test_contradiction_is_refused_with_its_line(workloads: str, flags: str, env: str, problem: str) -> None:
    with pytest.raises(PoolsFileError) as caught:
        parse(FILE.format(workloads=workloads, flags=flags, env=env).encode(), Path("pools.toml"))
    assert {found.line for found in caught.value.problems} == {4}
    assert any(problem in found.problem for found in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("workloads", "flags"),
    [
        ('["completion", "embedding"]', '["--pooling", "mean"]'),
        ('["embedding"]', '["--embeddings"]'),
        ('["rerank"]', '["--embeddings", "--pooling", "rank"]'),
    ],
)
def test_workloads_allowed_by_flags_are_accepted(workloads: str, flags: str) -> None:
    [found] = parse(FILE.format(workloads=workloads, flags=flags, env="{}").encode(), Path("pools.toml"))
    assert expected(found) == found.workloads


def test_declared_and_reported_workloads_are_announced() -> None:
    assert served(pool(), ["embedding"]) == ["embedding"]
    assert served(pool(flags=["--reranking"]), None) == ["rerank"]
    theirs = pool(workloads=["completion", "embedding"], provisioning=EXTERNAL)
    assert served(theirs, ["completion"]) == ["completion"]
    assert served(theirs, ["embedding"]) == ["completion", "embedding"]
    assert served(pool(provisioning=EXTERNAL, engine="vllm"), None) is None
    assert served(pool(provisioning=EXTERNAL, engine="vllm", workloads=["embedding"]), None) == ["embedding"]
