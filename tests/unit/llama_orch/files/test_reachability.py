"""An unreadable model is reported with the directory or file at fault and the command that fixes it."""

import os
from pathlib import Path
from tempfile import gettempdir

import pytest

from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.sources.file import check_readable
from llama_orch.files.reachability import (
    UNMAPPED,
    UnixUser,
    current_user,
    find_obstacle,
    find_user,
    mode_permits,
)

STRANGER = UnixUser("llama-engine", 64_123, frozenset({64_123}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Create a model in directories that all users can search, including tmp_path."""
    directory = tmp_path / "private" / "models"
    directory.mkdir(parents=True)
    below_tmp = tmp_path.relative_to(gettempdir()).parts
    for parent in (tmp_path, *tmp_path.parents[: len(below_tmp) - 1]):
        parent.chmod(0o755)
    path = directory / "a model.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0o644)
    return path


def test_readable_model_has_no_obstacle(model: Path) -> None:
    assert find_obstacle(model, STRANGER) is None
    assert find_obstacle(model, current_user()) is None


def test_unsearchable_directory_is_reported_with_command(model: Path, tmp_path: Path) -> None:
    (tmp_path / "private").chmod(0o700)
    found = find_obstacle(model, STRANGER)
    assert found is not None
    assert found.path == tmp_path / "private"
    assert str(found) == f"user llama-engine has no search permission on the directory {found.path} (mode 0700)"
    assert found.command == f"chmod o+x {found.path}"
    with pytest.raises(ProvisioningFailure, match="no search permission") as caught:
        check_readable(model, STRANGER)
    assert f"chmod o+x {found.path}" in str(caught.value)


def test_unreadable_file_is_quoted_in_the_command(model: Path) -> None:
    model.chmod(0o600)
    found = find_obstacle(model, STRANGER)
    assert found is not None
    assert found.command == f"chmod o+r '{model}'"


def test_command_removes_the_obstacle(model: Path, tmp_path: Path) -> None:
    (tmp_path / "private").chmod(0o700)
    found = find_obstacle(model, STRANGER)
    assert found is not None
    assert os.system(found.command) == 0
    assert find_obstacle(model, STRANGER) is None


def test_group_permission_counts(model: Path, tmp_path: Path) -> None:
    (tmp_path / "private").chmod(0o750)
    group = (tmp_path / "private").stat().st_gid
    assert find_obstacle(model, UnixUser("x", 64_123, frozenset({group}))) is None
    assert find_obstacle(model, STRANGER) is not None


@pytest.mark.parametrize(
    ("mode", "known", "allowed"), [(0o750, True, False), (0o750, False, True), (0o000, False, False)]
)
def test_unmapped_owner_is_assumed_to_permit(model: Path, mode: int, known: bool, allowed: bool) -> None:
    model.parent.chmod(mode)
    found = list(model.parent.stat())
    if not known:
        found[4:6] = [UNMAPPED, UNMAPPED]
    assert mode_permits(os.stat_result(found), STRANGER, True) is allowed
    model.parent.chmod(0o755)


def test_directories_behind_a_link_are_checked(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    (tmp_path / "private").chmod(0o700)
    found = find_obstacle(link, STRANGER)
    assert found is not None
    assert found.path == tmp_path / "private"


def test_missing_model_has_no_obstacle(model: Path) -> None:
    assert find_obstacle(model.with_name("absent.gguf"), STRANGER) is None


def test_unknown_user_is_none() -> None:
    assert find_user("no-such-user-here") is None
    assert (root := find_user("root")) is not None
    assert root.uid == 0
