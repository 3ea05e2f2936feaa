"""Mode container without a runtime; tests/system has a real podman."""

from pathlib import Path
from typing import Any

import pytest

from engine_provisioner import engine_record
from engine_provisioner.engine import Engine, Image, ImageOrder, LocalModel, Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch import probes
from engine_provisioner.launch.command import engine_command
from engine_provisioner.launch.images import image_of, pull_failure
from engine_provisioner.modes.container import ContainerMode, find_runtime
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import StepDeadline
from tests.unit.engine_provisioner.fetching import acquirer
from tests.unit.engine_provisioner.pools import pool

DIGEST = "sha256:" + "b" * 64
IMAGE = Image("podman", "ghcr.io/x/y:1", "a" * 64, DIGEST, "version: 5 (abc)", "--metrics\n--slots\n")


async def untold(_text: str) -> None:
    return None


def mode(**keys: Any) -> ContainerMode:
    return ContainerMode.model_validate({"mode": "container", **keys})


def container_pool(**keys: Any) -> Pool:
    return pool(provisioning={"mode": "container", "image": "ghcr.io/x/y", "tag": "1"}, **keys)


def command(wanted: Pool, model: Path, devices: tuple[int, ...] = ()) -> tuple[str, ...]:
    engine = Engine(Program((), Path("/usr/bin/podman"), image=IMAGE), "5", frozenset({"--metrics"}))
    local = LocalModel("hf:org/Qwen", model, 1)
    found = engine_command(wanted, engine, local, port=18080, devices=devices, cache_ram_mib=1)
    assert found.container is not None
    assert found.container.models == str(model.parent)
    return found.argv


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an imitation of podman as the only PATH."""
    program = tmp_path / "bin/podman"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


@pytest.mark.parametrize(
    ("keys", "reference"),
    [
        ({"image": "ghcr.io/x/y"}, "ghcr.io/x/y:latest"),
        ({"image": "host:5000/x", "tag": "b1"}, "host:5000/x:b1"),
        ({"image": "x/y:b1"}, "x/y:b1"),
        ({"image": f"x/y@{DIGEST}"}, f"x/y@{DIGEST}"),
    ],
)
def test_reference_has_one_tag_or_digest(keys: dict[str, str], reference: str) -> None:
    assert mode(**keys).reference == reference


def test_tag_besides_a_digest_is_refused() -> None:
    [(key, problem)] = mode(image=f"x@{DIGEST}", tag="b1").problems()
    assert key == ("provisioning", "tag")
    assert "contradicts image" in problem


@pytest.mark.parametrize(
    "keys", [{"image": "docker-archive:/x.tar"}, {"image": "-x"}, {"image": "x", "tag": "-x"}, {"image": "x y"}]
)
def test_unsafe_names_are_refused(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        mode(**keys)


async def test_image_is_provided_once_known_and_recorded(tmp_path: Path, podman: Path) -> None:
    orders: list[ImageOrder] = []

    async def provide(order: ImageOrder) -> Image:
        orders.append(order)
        return IMAGE

    program = await acquirer(tmp_path).program(container_pool(), StepDeadline("a"), untold, (), provide)
    assert orders == [ImageOrder("podman", "ghcr.io/x/y:1", ())]
    assert (program.file, program.image) == (podman, IMAGE)
    assert program.record is not None
    record = engine_record.read(program.record)
    assert record is not None
    assert (record.mode, record.source, record.digest) == ("container", "ghcr.io/x/y:1", DIGEST)


async def test_engine_of_an_image_is_not_run_to_probe_it() -> None:
    engine = await probes.probe(Program((), Path("/nonexistent"), image=IMAGE))
    assert (engine.version, set(engine.options)) == ("5 (abc)", {"--metrics", "--slots"})


def test_missing_runtime_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProvisioningFailure, match=r"needs podman or docker, .*Install it: \w+") as caught:
        find_runtime(None)
    assert caught.value.retry is Retry.AFTER_FIX


def test_podman_is_preferred_to_docker(podman: Path) -> None:
    docker = podman.with_name("docker")
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    assert find_runtime(None) == ("podman", podman)
    assert find_runtime("docker") == ("docker", docker)


def test_llamacpp_gets_model_and_port_in_the_container() -> None:
    argv = command(container_pool(), Path("/srv/m.gguf"))
    assert argv[:6] == ("-m", "/models/m.gguf", "--host", "127.0.0.1", "--port", "18080")
    assert "--metrics" in argv


def test_vllm_gets_the_command_line_of_its_image() -> None:
    argv = command(container_pool(engine="vllm", ctx=8192, slots=16), Path("/srv/Qwen"), (0, 1))
    assert argv == (
        *("--model", "/models/Qwen", "--served-model-name", "hf:org/Qwen", "Qwen"),
        *("--host", "127.0.0.1", "--port", "18080"),
        *("--max-model-len", "8192", "--max-num-seqs", "16", "--tensor-parallel-size", "2"),
    )


def test_tgi_gets_the_command_line_of_its_image() -> None:
    argv = command(container_pool(engine="tgi", ctx=4096, slots=8), Path("/srv/Qwen"))
    assert argv == (
        *("--model-id", "/models/Qwen", "--hostname", "127.0.0.1", "--port", "18080"),
        *("--max-total-tokens", "4096", "--max-input-tokens", "4095", "--max-concurrent-requests", "8"),
    )


def test_triton_gets_the_command_line_of_its_image() -> None:
    argv = command(container_pool(engine="triton"), Path("/srv/repository"))
    assert argv[:4] == ("--model-repository", "/models/repository", "--http-address", "127.0.0.1")
    assert argv[4:6] == ("--http-port", "18080")


def test_container_numbers_its_gpus_from_zero() -> None:
    engine = Engine(Program((), Path("/usr/bin/podman"), image=IMAGE), "5", frozenset())
    model = LocalModel("file:m", Path("/srv/m.gguf"), 1)
    found = engine_command(container_pool(), engine, model, port=1, devices=(2, 3), cache_ram_mib=1)
    assert found.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert found.container is not None
    assert found.container.devices == (2, 3)


async def test_vllm_is_not_started_by_other_modes(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningFailure, match="only in mode container"):
        await acquirer(tmp_path).program(pool(engine="vllm"), StepDeadline("a"), untold)


@pytest.mark.parametrize(
    ("line", "retry"),
    [
        ("Error: initializing source docker://x: reading manifest b9 in ghcr.io/x: manifest unknown", Retry.AFTER_FIX),
        ("Error: pinging container registry x: dial tcp: i/o timeout", Retry.BACKOFF),
    ],
)
def test_failed_pull_shows_last_lines(line: str, retry: Retry) -> None:
    failure = pull_failure("ghcr.io/x:b9", "ended with status 125", ["Trying to pull ghcr.io/x:b9...", line])
    assert line in str(failure)
    assert failure.retry is retry


def test_invalid_facts_about_an_image_are_refused() -> None:
    order = ImageOrder("podman", "x", ())
    with pytest.raises(ProvisioningFailure, match="are invalid"):
        image_of(order, {"image_id": 1})
