"""What the last load took is kept for the same model and options, and read back also after damage."""

import os
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from engine_provisioner.memory import measuring
from engine_provisioner.memory.loads import Load, Loads, key_of
from engine_provisioner.memory.measuring import gpu_bytes, group_bytes, measure, resident_bytes
from tests.unit.engine_provisioner.pools import MODEL, engine, pool

STAT = "anon 1000\nfile 999999\nkernel 7\nfile_mapped 300\nshmem 20\nodd\nnumber x\n"


def test_load_is_kept_across_restarts(tmp_path: Path) -> None:
    load = Load(need_bytes={"0": 5, "cpu": 7}, took_s=1.5, ctx_max=256)
    Loads(tmp_path).save("k", load)
    assert Loads(tmp_path).last("k") == load
    assert Loads(tmp_path).last("other") is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"took_s": -1}', b'{"need_bytes": {"gpu": 1}}', b"x" * 100_000])
def test_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "loads").mkdir()
    (tmp_path / "loads/k.json").write_bytes(content)
    assert Loads(tmp_path).last("k") is None


def test_unwritable_cache_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "loads").write_text("in the way")
    Loads(tmp_path).save("k", Load())


def test_key_depends_on_what_decides_about_memory() -> None:
    def key(**keys: object) -> str:
        return key_of(pool(**keys), engine(), MODEL, ())

    others = [
        key(ctx=64),
        key(slots=2),
        key(flags=["--no-mmap"]),
        key_of(pool(), engine(), MODEL, (0,)),
        key_of(pool(), engine(), replace(MODEL, size_bytes=1), ()),
        key_of(pool(), engine(), replace(MODEL, digest="sha256:2"), ()),
        key_of(pool(), replace(engine(), version="2"), MODEL, ()),
    ]
    assert len({key(), *others}) == len(others) + 1
    assert key() == key(keep_alive=5, ports=[9000])


def test_child_is_measured_by_its_resident_set() -> None:
    resident = resident_bytes(os.getpid())
    assert resident is not None
    assert resident > 1 << 20
    assert measure(os.getpid(), (), None, 1 << 60) == {"cpu": pytest.approx(resident, rel=0.5)}


def test_process_that_is_gone_or_hidden_is_not_measured(tmp_path: Path) -> None:
    assert resident_bytes(1 << 30) is None
    assert group_bytes(tmp_path / "absent", 0) is None
    assert measure(1 << 30, (), None, 5) == {}


def test_unit_is_measured_without_cached_files(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text(STAT)
    assert group_bytes(tmp_path, 0) == 1300
    assert measure(1, (), tmp_path, 5000) == {"cpu": 6000}


class Process:
    def __init__(self, pid: int, used: int | None) -> None:
        self.pid = pid
        self.usedGpuMemory = used


def imitate_nvml(monkeypatch: pytest.MonkeyPatch, found: dict[int, list[Process]]) -> None:
    """Replace the functions of pynvml; a device that is not in `found` is lost."""

    def handle(index: int) -> int:
        if index not in found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", found.__getitem__)


def test_gpus_are_measured_by_the_process_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text(STAT)
    imitate_nvml(monkeypatch, {0: [Process(7, 1000), Process(8, 5)], 1: [Process(7, None)]})
    assert dict(gpu_bytes(7, (0, 1))) == {"0": 1000}
    assert measure(7, (0, 1), tmp_path, 5000) == {"0": 1000, "cpu": 1300}


def test_lost_gpu_leaves_the_others_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    imitate_nvml(monkeypatch, {0: [Process(7, 1000)]})
    assert dict(gpu_bytes(7, (0, 1))) == {"0": 1000}


def test_machine_without_nvml_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert dict(measuring.gpu_bytes(7, (0,))) == {}
