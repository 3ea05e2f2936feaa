"""What would stop a new pool is found before its file is written."""

from pathlib import Path
from typing import Any

import pytest

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes import pip
from engine_provisioner.plan.pool_plan import Problem
from engine_provisioner.plan.preflight import obstacles
from engine_provisioner.settings import ProvisionerSettings
from engine_provisioner.sources.source import SourceContext
from tests.imitations.hub import Hub
from tests.unit.engine_provisioner.pools import pool

PACKAGE = {"mode": "package", "name": "pip:xllamacpp", "version": "1", "allow_package_installs": True}
CONTAINER = {"mode": "container", "image": "localhost/x"}


async def found(tmp_path: Path, model: str, provisioning: dict[str, Any] = PACKAGE, **environ: str) -> list[Problem]:
    given = {"ENGINE_PROVISIONER_GPU_MASK": "cpu", "ENGINE_PROVISIONER_CACHE_DIR": str(tmp_path), **environ}
    settings = ProvisionerSettings.load(given)
    spec = pool(model={"ref": model}, provisioning=provisioning)
    return await obstacles(settings, SourceContext(tmp_path, settings), spec)


async def test_model_that_the_hub_has_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "hub/org/repo").mkdir(parents=True)
    (tmp_path / "hub/org/repo/m-Q4_0.gguf").write_bytes(b"GGUF")
    async with Hub(tmp_path / "hub").serving() as hub:
        assert await found(tmp_path, "hf:org/repo:Q4_0", HF_ENDPOINT=hub.url) == []
        [problem] = await found(tmp_path, "hf:org/repo:Q8_0", HF_ENDPOINT=hub.url)
        [absent] = await found(tmp_path, "hf:org/other:Q8_0", HF_ENDPOINT=hub.url)
    assert "Q4_0" in problem.message + problem.hint
    assert "does not exist, or is private" in absent.message


async def test_server_that_cannot_be_reached_is_no_obstacle(tmp_path: Path, autojump_clock: object) -> None:
    assert await found(tmp_path, "hf:org/repo:Q4_0", HF_ENDPOINT="http://127.0.0.1:9") == []


async def test_missing_pip_and_gpu_are_named_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[str]:
        raise ProvisioningFailure("python3 has no pip", "Install it: apt install python3-venv.", Retry.AFTER_FIX)

    monkeypatch.setattr(pip, "command", missing)
    problems = await found(tmp_path, "https://h.invalid/m.gguf", ENGINE_PROVISIONER_GPU_MASK="63")
    assert any("GPU" in problem.message for problem in problems)
    assert "apt install python3-venv" in " ".join(problem.hint for problem in problems)


async def test_engines_that_only_root_can_look_at_are_left_out(tmp_path: Path) -> None:
    assert await found(tmp_path, "file:/absent.gguf", CONTAINER) == []
