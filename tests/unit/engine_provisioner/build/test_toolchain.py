"""Missing tools are named all at once, with the command that installs them."""

from pathlib import Path

import pytest

from engine_provisioner.build import toolchain
from engine_provisioner.build.toolchain import C_COMPILER, CMAKE, CXX_COMPILER, GIT, NINJA, install_command, version_in
from engine_provisioner.failures import Retry

NVCC = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Cuda compilation tools, release 13.0, V13.0.88
"""


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "debian"}, "apt install git cmake ninja-build g++"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "apt install git cmake ninja-build g++"),
        ({"ID": "fedora"}, "dnf install git-core cmake ninja-build gcc-c++"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install git-core cmake ninja-build gcc-c++"),
        ({"ID": "arch"}, "the packages that contain git, cmake, ninja, cc, c++"),
    ],
)
def test_install_command_fits_the_distribution(release: dict[str, str], command: str) -> None:
    assert install_command([GIT, CMAKE, NINJA, C_COMPILER, CXX_COMPILER], release) == command


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
