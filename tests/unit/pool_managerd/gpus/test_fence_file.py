"""Fences survive a restart of the daemon, but not of the machine."""

from pathlib import Path

import pytest

from pool_managerd.gpus.faults import Fault
from pool_managerd.gpus.fence_file import FenceFile
from pool_managerd.gpus.fencing import Fencing, after_fault, after_unfence
from tests.unit.pool_managerd.values import gpu


def some_state() -> Fencing:
    first = after_fault(Fencing(), gpu(0), Fault("nvml", 79, 10.0)).state
    second = after_fault(first, gpu(1), Fault("nvml", 48, 11.0)).state
    return after_unfence(second, gpu(1).uuid, "gpu_reset", 12.0).state


def file_in(directory: Path, boot: str = "a") -> FenceFile:
    boot_id = directory / "boot_id"
    boot_id.write_text(f"{boot}\n")
    return FenceFile(directory / "run", boot_id)


def test_fences_are_the_same_after_a_restart(tmp_path: Path) -> None:
    file_in(tmp_path).save(some_state(), 99.5)
    assert file_in(tmp_path).load() == (some_state(), 99.5)


def test_fences_end_with_a_reboot(tmp_path: Path) -> None:
    file_in(tmp_path).save(some_state(), 99.5)
    assert file_in(tmp_path, "b").load() == (Fencing(), None)


def test_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert file_in(tmp_path).load() == (Fencing(), None)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"schema": 1, "boot_id": "a", "fences": [{"uuid": 1}]}', "[" * 9999]
)
def test_damaged_file_is_an_error_with_a_reason(tmp_path: Path, content: str) -> None:
    file = file_in(tmp_path)
    file.path.parent.mkdir()
    file.path.write_text(content)
    with pytest.raises(ValueError, match=r".+"):
        file.load()
