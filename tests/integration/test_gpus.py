"""pool-managerd with imitated NVIDIA GPUs, and a real llama-server that runs on the CPU in their name."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engines.running import Engine, running_engine
from tests.gpus.imitation import ImitatedDriver, ImitatedGpu
from tests.integration.pool_manager import PoolManager, pool_manager

FIRST = ImitatedGpu()
SECOND = ImitatedGpu(1, "GPU-00000000-0000-0000-0000-00000000000b", pci="00000000:11:00.0")


@pytest.fixture(scope="module")
def engine(llama_server: Path, tiny_model: Path) -> Iterator[Engine]:
    with running_engine(llama_server, tiny_model, slots=3, ctx=256) as running:
        yield running


@pytest.fixture
def driver(tmp_path: Path) -> ImitatedDriver:
    return ImitatedDriver(tmp_path / "hardware", [FIRST, SECOND])


@contextmanager
def machine(directory: Path, driver: ImitatedDriver) -> Iterator[PoolManager]:
    with pool_manager(directory, POOL_MANAGERD_GPU_READ_INTERVAL_MS="500", **driver.environ) as running:
        yield running


def gpu(manager: PoolManager, index: int = 0) -> dict[str, Any]:
    found: list[dict[str, Any]] = manager.ask("GET", "/v2/gpus")[1]["gpus"]
    return next(each for each in found if each["index"] == index)


def ready(manager: PoolManager, pool_id: str = "default") -> bool:
    return bool(manager.pool(pool_id).get("ready"))


def events(manager: PoolManager) -> list[str]:
    return [record["event"] for line in manager.log().splitlines() if "event" in (record := json.loads(line))]


def test_xid_79_drains_pools_until_the_gpu_was_reset(tmp_path: Path, driver: ImitatedDriver, engine: Engine) -> None:
    with machine(tmp_path, driver) as manager:
        manager.announce(engine.url, device_mask="0")
        manager.until(lambda: ready(manager))

        driver.inject(79)
        manager.until(lambda: manager.pool()["draining"])
        pool = manager.pool()
        assert (pool["state"], pool["ready"]) == ("failed", False)
        assert pool["last_error"].startswith("GPU 0 (NVIDIA H100) is fenced: Xid 79, the GPU has fallen off the bus.")
        assert "reboot" in pool["last_error"]
        assert (gpu(manager)["state"], gpu(manager, 1)["state"]) == ("fenced", "ok")
        assert gpu(manager)["faults"] == {"79": 1}
        refused, body = manager.ask("POST", "/v2/pools/default/engine/completion")
        assert (refused, body["code"]) == (503, "POOL_UNREADY")
        assert manager.ask("POST", "/v2/pools/default/resume")[0] == 409
        metrics = manager.metrics()
        assert f'gpu_fenced{{device="0",uuid="{FIRST.uuid}"}} 1.0' in metrics
        assert f'gpu_fenced{{device="1",uuid="{SECOND.uuid}"}} 0.0' in metrics
        assert 'xid_errors_total{device="0",xid="79"} 1.0' in metrics
        assert [name for name in events(manager) if name.startswith("gpu_f")] == ["gpu_fault", "gpu_fenced"]

        driver.change(lost=1)
        manager.stop()
        manager.start()
        manager.until(lambda: manager.pool().get("last_error"))
        assert not ready(manager)

        driver.change(lost=0, joules=1.0)
        manager.until(lambda: ready(manager))
        assert manager.pool()["draining"] is False
        assert gpu(manager)["state"] == "ok"
        assert "gpu_unfenced" in events(manager)


def test_operator_ends_a_fence(tmp_path: Path, driver: ImitatedDriver, engine: Engine) -> None:
    with machine(tmp_path, driver) as manager:
        manager.announce(engine.url, device_mask=SECOND.uuid)
        manager.until(lambda: ready(manager))
        assert manager.ask("POST", "/v2/gpus/1/unfence")[0] == 409
        assert manager.ask("POST", "/v2/gpus/7/unfence")[0] == 404
        driver.inject(48, index=1)
        manager.until(lambda: not ready(manager))
        assert manager.ask("POST", "/v2/gpus/1/unfence")[0] == 204
        manager.until(lambda: ready(manager))


def test_lost_and_overheated_gpus_are_shown(tmp_path: Path, driver: ImitatedDriver, engine: Engine) -> None:
    with machine(tmp_path, driver) as manager:
        manager.announce(engine.url, device_mask="0")
        manager.until(lambda: ready(manager))
        driver.change(temp=95, reasons=0x40)
        manager.until(lambda: gpu(manager)["state"] == "throttled")
        assert ready(manager)
        driver.change(lost=1)
        manager.until(lambda: gpu(manager)["state"] == "lost")
        manager.until(lambda: not ready(manager))
        assert manager.pool()["last_error"] == "GPU 0 (NVIDIA H100) is lost: its driver no longer finds it"
        driver.change(lost=0, temp=50, reasons=0)
        manager.until(lambda: ready(manager))
        told = [name for name in events(manager) if name in ("gpu_throttled", "gpu_lost", "gpu_returned")]
        assert told == ["gpu_throttled", "gpu_lost", "gpu_returned"]


def test_silent_driver_makes_gpus_unknown_and_serves_on(tmp_path: Path, driver: ImitatedDriver, engine: Engine) -> None:
    with machine(tmp_path, driver) as manager:
        manager.announce(engine.url, device_mask="0")
        manager.until(lambda: ready(manager))
        driver.show("fail 999")
        manager.until(lambda: gpu(manager)["state"] == "unknown")
        assert ready(manager)
        driver.show()
        manager.until(lambda: gpu(manager)["state"] == "ok")
        assert events(manager).count("gpus_unknown") == 1


def test_energy_of_answers_is_attributed_to_the_pool(tmp_path: Path, driver: ImitatedDriver, engine: Engine) -> None:
    with machine(tmp_path, driver) as manager:
        manager.announce(engine.url, device_mask="0,1")
        manager.until(lambda: gpu(manager)["pools"] and ready(manager))
        joules, body = 1000.0, json.dumps({"prompt": "a", "n_predict": 16, "ignore_eos": True}).encode()

        def generated() -> dict[str, Any] | None:
            nonlocal joules
            joules += 50.0
            driver.change(joules=joules)
            request = urllib.request.Request(f"{engine.url}/completion", body)
            urllib.request.urlopen(request, timeout=20).read()
            pool: dict[str, Any] = gpu(manager)["pools"][0]
            return pool if pool["joules_per_1000_tokens"] and pool["energy_joules"] else None

        pool = manager.until(generated)
        assert pool["pool_id"] == "default"
        metrics = manager.metrics()
        assert 'pool_energy_joules_total{pool_id="default"}' in metrics
        assert 'pool_tokens_generated_total{pool_id="default"}' in metrics
        assert f'gpu_energy_joules_total{{device="0",uuid="{FIRST.uuid}"}}' in metrics
