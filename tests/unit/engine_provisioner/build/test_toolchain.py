"""Missing tools are named all at once, with the command that installs them."""

from pathlib import Path

import pytest

from engine_provisioner.build import toolchain
from engine_provisioner.build.toolchain import CMAKE, GIT, NINJA, version_in
from engine_provisioner.failures import Retry

NVCC = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Cuda compilation tools, release 13.0, V13.0.88
"""


def test_all_missing_tools_are_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, missing = toolchain.find([GIT, CMAKE, NINJA])
    failure = toolchain.missing_failure(missing)
    assert found == {}
    assert failure.message == "building the engine needs git, cmake, ninja, which are not installed"
    assert failure.retry is Retry.AFTER_FIX


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("c++ (Debian 12.2.0) 12.2.0\nCopyright\n", "c++ (Debian 12.2.0) 12.2.0"),
        (NVCC, "Cuda compilation tools, release 13.0, V13.0.88"),
        ("", "unknown"),
    ],
)
def test_version_line_is_found(text: str, line: str) -> None:
    assert version_in(text) == line
