"""The command that installs a program fits the distribution."""

import pytest

from llama_orch.packages import Tool, install_command

TOOLS = (Tool("git", apt="git", dnf="git-core"), Tool("cc", apt="g++", dnf="gcc-c++"), Tool("c++", "g++", "gcc-c++"))


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "debian"}, "apt install git g++"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "apt install git g++"),
        ({"ID": "fedora"}, "dnf install git-core gcc-c++"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install git-core gcc-c++"),
        ({"ID": "arch"}, "the packages that contain git, cc, c++"),
        ({}, "the packages that contain git, cc, c++"),
    ],
)
def test_install_command_fits_the_distribution(release: dict[str, str], command: str) -> None:
    assert install_command(TOOLS, release) == command
