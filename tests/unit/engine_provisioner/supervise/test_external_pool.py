"""External engines of all kinds are watched, announced with their own description, and withdrawn."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from engine_provisioner.modes.external import ExternalMode
from engine_provisioner.report.handoffs import document_of, path_of
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise import external_pool
from engine_provisioner.supervise.external_pool import ExternalPool, announcement
from engine_provisioner.supervise.health import Condition, check, describe
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from llama_orch.engines.kind import Description
from tests.unit.engine_provisioner.pools import pool
from tests.unit.engine_provisioner.waiting import until
from tests.unit.pool_managerd.scripted_http import http, scripted_http
from tests.unit.queen_rbee.imitations.openai import OpenAiImitation
from tests.unit.queen_rbee.imitations.server import Imitation, listening
from tests.unit.queen_rbee.imitations.tgi import TgiImitation
from tests.unit.queen_rbee.imitations.triton import TritonImitation
from tests.unit.queen_rbee.imitations.vllm import VllmImitation

URL = "http://127.0.0.1:9000"
DESCRIPTIONS: Mapping[type[Imitation], Description] = {
    VllmImitation: Description(("org/served",), 2048, version="0.11.0"),
    TgiImitation: Description(("org/tgi",), 2048, version="3.3.4"),
    TritonImitation: Description((), version="2.59.0"),
    OpenAiImitation: Description(()),
}
KINDS = pytest.mark.parametrize("make", DESCRIPTIONS, ids=lambda make: make.engine)


def announced(reported: Description, **keys: Any) -> Handoff:
    keys = {"model": None, "engine": "vllm", **keys}
    spec = pool(provisioning={"mode": "external", "url": URL}, **keys)
    return document_of(announcement(spec, URL, reported), datetime.now(UTC))


@KINDS
async def test_each_kind_is_healthy_and_described(make: type[Imitation]) -> None:
    async with listening(make()) as imitation:
        assert (await check(imitation.url, imitation.engine)).condition is Condition.UP
        assert await describe(imitation.url, imitation.engine) == DESCRIPTIONS[make]


@pytest.mark.parametrize(
    ("engine", "path", "status", "condition"),
    [
        ("llamacpp", "/health", 503, Condition.LOADING),
        ("vllm", "/health", 503, Condition.LOADING),
        ("triton", "/v2/health/ready", 400, Condition.LOADING),
        ("openai-http", "/v1/models", 401, Condition.SILENT),
        ("tgi", "/health", 404, Condition.SILENT),
    ],
)
async def test_health_status_depends_on_the_kind(engine: str, path: str, status: int, condition: Condition) -> None:
    async with scripted_http({path: http(status, b"{}")}) as port:
        seen = await check(f"http://127.0.0.1:{port}", engine)
    assert seen.condition is condition
    assert seen.detail


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b'{"data":[1]}', b'{"data":[{"id":1}],"version":{}}'])
@pytest.mark.parametrize("engine", ["vllm", "tgi", "triton", "openai-http", "llamacpp"])
async def test_malformed_description_is_ignored(engine: str, body: bytes) -> None:
    paths = ("/version", "/v1/models", "/info", "/v2", "/props")
    async with scripted_http({path: http(200, body) for path in paths}) as port:
        assert await describe(f"http://127.0.0.1:{port}", engine) == Description(())


def test_model_is_announced_under_its_served_name() -> None:
    document = announced(Description(("org/served",), 2048, version="1"), model="hf:org/other", slots=4)
    assert document.model
    assert (document.model.id, document.model.ctx_max, document.slots_total) == ("org/served", 2048, 4)
    assert announced(Description((), version="1"), model="hf:org/other").model is None


def test_context_is_announced_only_if_known() -> None:
    silent = announced(Description(("m",), version="1"))
    assert silent.model
    assert silent.model.ctx_max is None
    written = announced(Description(("m",), version="1"), ctx=512)
    assert written.model
    assert written.model.ctx_max == 512


class Stage:
    """An external pool with its own handoff directory."""

    def __init__(self, directory: Path, imitation: Imitation, **keys: Any) -> None:
        (directory / "status").mkdir()
        self.directory = directory
        how = {"mode": "external", "url": imitation.url}
        spec = pool(engine=imitation.engine, model=None, provisioning=how, **keys)
        reporter = PoolReporter(spec, PoolReports(directory / "status", CollectorRegistry()), directory)
        self.runner = ExternalPool(spec, ExternalMode.model_validate(how), reporter, StepDeadline("default"))

    @property
    def state(self) -> PoolState | None:
        file = self.directory / "status/default.json"
        return ProvisioningReport.model_validate_json(file.read_bytes()).state if file.exists() else None

    @property
    def handoff(self) -> Handoff | None:
        file = path_of(self.directory, "default")
        return Handoff.model_validate_json(file.read_bytes()) if file.exists() else None


@KINDS
async def test_engine_is_announced_while_it_answers(
    make: type[Imitation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_pool, "CHECK_EVERY_S", 0.01)
    async with trio.open_nursery() as nursery:
        async with listening(make()) as imitation:
            stage = Stage(tmp_path, imitation, slots=3)
            nursery.start_soon(stage.runner.run)
            await until(lambda: stage.handoff is not None)
            document = stage.handoff
            assert document
            assert (document.engine, document.slots_total) == (imitation.engine, 3)
            assert document.engine_version == (DESCRIPTIONS[make].version or "unknown")
        await until(lambda: stage.state is PoolState.FAILED)
        assert stage.handoff is None
        nursery.cancel_scope.cancel()
