"""A kind that is registered in KINDS is known everywhere: nothing else lists the kinds."""

import json
import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from engine_provisioner.engine import Engine, LocalModel, Program
from engine_provisioner.launch.command import engine_command
from engine_provisioner.spec.pools_file import PoolsFileError, parse
from engine_provisioner.spec.pools_schema import pools_schema
from engine_provisioner.supervise.health import Condition, check
from llama_orch.contracts.engines import EngineKind, Workload
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines import KINDS, health_path, is_loading
from llama_orch.engines.engine_client import EngineClient
from llama_orch.engines.kind import Description, EngineOptions, Kind, Launch, LaunchRequest, Load, Slots
from llama_orch.engines.relay_paths import relay_purpose
from llama_orch.engines.wire.adapters import adapters
from llama_orch.engines.wire.llamacpp import LlamaCpp
from llama_orch.engines.workloads import announced
from orchctl.submit import request
from pool_managerd.engines.probing import probe
from pool_managerd.pools.replica import HealthAnswer, ProbeResult
from queen_rbee.pools.capabilities import capabilities
from tests.unit.engine_provisioner.pools import pool
from tests.unit.pool_managerd.scripted_http import http, scripted_http

POOLS_FILE = """[[pools]]
id = "a"
engine = "{engine}"
model = "file:/srv/m.gguf"
[pools.provisioning]
mode = "external"
url = "http://127.0.0.1:9000"
"""


async def describe(client: EngineClient) -> Description | None:
    return Description(((await client.get("/model")).decode(),), 512)


async def load(_client: EngineClient, _flags: Sequence[str]) -> Load:
    return Load(Slots(3, 2), 0.5)


def arguments(launch: LaunchRequest) -> list[str]:
    return ["--serve", launch.model_path]


def workload(_options: EngineOptions) -> Workload:
    return "rerank"


DUMMY = Kind(
    "dummy",
    relay_paths={"/dummy/generate": "completion"},
    describe=describe,
    adapter=LlamaCpp,
    health_path="/dummy/health",
    loading_statuses=frozenset({425}),
    load=load,
    workloads_by_flags=lambda flags: ["embedding"] if "--embed" in flags else None,
    launch=Launch(arguments, workload, lambda options: iter(("no workloads allowed",) if options.workloads else ())),
)


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setitem(KINDS, "dummy", DUMMY)
    return DUMMY


def handoff(port: int = 1, flags: Sequence[str] = ()) -> Handoff:
    document = {"pool_id": "a", "engine": "dummy", "engine_version": "1", "url": f"http://127.0.0.1:{port}"}
    return Handoff.model_validate({**document, "flags": list(flags)})


def test_unknown_kind_is_refused_with_all_known_kinds() -> None:
    with pytest.raises(ValidationError, match="'llamacpp', 'vllm', 'tgi', 'triton' or 'openai-http'"):
        TypeAdapter(EngineKind).validate_python("dummy")
    with pytest.raises(PoolsFileError, match="allowed: llamacpp, vllm, tgi, triton or openai-http"):
        parse(POOLS_FILE.format(engine="dummy").encode(), Path("pools.toml"))


@pytest.mark.usefixtures("dummy")
def test_new_kind_is_accepted_in_files_and_tasks() -> None:
    (configured,) = parse(POOLS_FILE.format(engine="dummy").encode(), Path("pools.toml"))
    assert configured.engine == "dummy"
    assert handoff().engine == "dummy"
    assert TaskRequest(engine="dummy").engine == "dummy"


@pytest.mark.usefixtures("dummy")
def test_new_kind_is_in_the_schemas() -> None:
    enum = ["llamacpp", "vllm", "tgi", "triton", "openai-http", "dummy"]
    engine = json.loads(pools_schema())["$defs"]["Pool"]["properties"]["engine"]
    assert (engine["enum"], engine["type"], engine["default"]) == (enum, "string", "llamacpp")
    assert TaskRequest.model_json_schema()["properties"]["engine"]["anyOf"][0]["enum"] == enum


@pytest.mark.usefixtures("dummy")
async def test_new_kind_is_probed_and_described() -> None:
    async with scripted_http({"/dummy/health": http(200, b""), "/model": http(200, b"m")}) as port:
        assert (await check(f"http://127.0.0.1:{port}", "dummy")).condition is Condition.UP
        result = await probe(handoff(port), describe=True)
    assert result == ProbeResult(HealthAnswer.READY, None, Slots(3, 2), Description(("m",), 512), 0.5)
    async with scripted_http({"/dummy/health": http(425, b"")}) as port:
        assert (await probe(handoff(port), describe=True)).answer is HealthAnswer.LOADING
    assert (health_path("dummy"), is_loading("dummy", 425), is_loading("dummy", 503)) == ("/dummy/health", True, False)


@pytest.mark.usefixtures("dummy")
def test_new_kind_is_relayed() -> None:
    assert relay_purpose("dummy", "POST", "/dummy/generate") == "completion"
    assert relay_purpose("dummy", "GET", "/dummy/health") == "health"
    assert relay_purpose("dummy", "POST", "/completion") is None


@pytest.mark.usefixtures("dummy")
def test_new_kind_has_an_adapter_and_capabilities() -> None:
    known = adapters()
    assert isinstance(known["dummy"], LlamaCpp)
    assert "dummy" in [engine.engine for engine in capabilities([], known).engines]


@pytest.mark.usefixtures("dummy")
def test_new_kind_is_started_by_its_own_command_line() -> None:
    engine = Engine(Program(("/usr/bin/dummy",), Path("/usr/bin/dummy")), "1", frozenset())
    model = LocalModel("m", Path("/srv/m"), 1)
    command = engine_command(pool(engine="dummy", flags=["-x"]), engine, model, port=1, devices=(), cache_ram_mib=1)
    assert command.argv == ("/usr/bin/dummy", "--serve", "/srv/m", "-x")


@pytest.mark.usefixtures("dummy")
def test_flags_of_a_new_kind_decide_its_workloads() -> None:
    assert announced(handoff(flags=["--embed"])) == ["embedding"]
    assert announced(handoff()) is None


@pytest.mark.usefixtures("dummy")
def test_orchctl_accepts_a_new_kind() -> None:
    declared = runpy.run_path(str(request.__file__))["TASK_ARGUMENTS"]
    [engine] = [each for each in declared if "--engine" in each.names]
    assert "dummy" in engine.settings["choices"]
