"""Drop-in files add pools to the pools file; problems name the file and, for two files, both places."""

import os
from pathlib import Path

import pytest

from engine_provisioner.spec.pools_directory import path_for, read
from engine_provisioner.spec.pools_file import PoolsFileError

HOW = 'provisioning = { mode = "external", url = "http://127.0.0.1:8081" }\n'


def entry(pool_id: str, more: str = "") -> str:
    return f'[[pools]]\nid = "{pool_id}"\n{more}{HOW}'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with pools.toml, which has the pool `main`, and an empty pools.d."""
    (tmp_path / "pools.d").mkdir()
    (tmp_path / "pools.toml").write_text(entry("main"))
    return tmp_path


def ids(directory: Path) -> list[str]:
    return [pool.id for pool in read(directory / "pools.toml") or []]


def problems(directory: Path) -> list[str]:
    with pytest.raises(PoolsFileError) as caught:
        read(directory / "pools.toml")
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


def test_drop_ins_follow_the_pools_file_by_name(files: Path) -> None:
    for name in ("20-b", "10-c", "30-a"):
        (files / f"pools.d/{name}.toml").write_text(entry(name))
    assert ids(files) == ["main", "10-c", "20-b", "30-a"]


def test_drop_ins_suffice_without_pools_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "pools.toml").unlink()
    assert read(files / "pools.toml") is None
    (files / "pools.d/one.toml").write_text(entry("one"))
    assert ids(files) == ["one"]
    monkeypatch.chdir(files)
    assert path_for(None) == Path("pools.toml")


def test_hidden_and_other_files_are_ignored(files: Path) -> None:
    for name in (".one.toml.1234", ".one.toml", "one.toml~", "one.toml.dpkg-old", "README"):
        (files / "pools.d" / name).write_text("[[")
    assert ids(files) == ["main"]


def test_id_in_two_files_names_both_places(files: Path) -> None:
    (files / "pools.d/two.toml").write_text("# a comment\n" + entry("main"))
    [problem] = problems(files)
    assert problem.startswith("pools.d/two.toml:3: pools[0].id: main is already used by the pool at pools.toml:2")


def test_port_in_two_files_names_both_places(files: Path) -> None:
    how = 'model = "file:/m"\nprovisioning = { mode = "package", name = "llama.cpp", allow_package_installs = true }\n'
    for name in ("a", "b"):
        (files / f"pools.d/{name}.toml").write_text(f'[[pools]]\nid = "{name}"\nports = [9000]\n{how}')
    [problem] = problems(files)
    assert "pools.d/b.toml:3: pools[0].ports: 9000 is already used" in problem
    assert "pools.d/a.toml:3" in problem


def test_group_of_another_file_can_be_used(files: Path) -> None:
    how = 'model = "file:/m"\nprovisioning = { mode = "package", name = "llama.cpp", allow_package_installs = true }\n'
    (files / "pools.d/a.toml").write_text(f'[[pools]]\nid = "a"\ngroup = "one"\n{how}')
    assert "one is not declared" in problems(files)[0]
    (files / "pools.d/z.toml").write_text('[groups.one]\nmode = "exclusive"\n')
    pools = read(files / "pools.toml")
    assert pools is not None
    assert [pool.exclusive for pool in pools] == [False, True]


def test_group_declared_twice_names_both_places(files: Path) -> None:
    for name in ("a", "b"):
        (files / f"pools.d/{name}.toml").write_text('[groups.one]\nmode = "exclusive"\n')
    [problem] = problems(files)
    assert problem.startswith("pools.d/b.toml:1: groups.one: is already declared at")
    assert "pools.d/a.toml:1" in problem


def test_problems_of_all_files_are_reported(files: Path) -> None:
    (files / "pools.d/a.toml").write_text(entry("a", "slots = 0\n"))
    (files / "pools.d/b.toml").write_text(entry("b", "colour = 1\n"))
    assert [problem.partition(": ")[0] for problem in problems(files)] == ["pools.d/a.toml:3", "pools.d/b.toml:3"]


def test_files_that_are_not_toml_are_all_named(files: Path) -> None:
    for name in ("a", "b"):
        (files / f"pools.d/{name}.toml").write_text("\n= 1\n")
    assert [problem.partition(": ")[0] for problem in problems(files)] == ["pools.d/a.toml:2", "pools.d/b.toml:2"]


def test_fifo_does_not_block(files: Path) -> None:
    os.mkfifo(files / "pools.d/a.toml")
    assert ids(files) == ["main"]


def test_files_are_bounded_together(files: Path) -> None:
    for name in ("a", "b"):
        (files / f"pools.d/{name}.toml").write_bytes(b"#" * 600_000)
    assert "pools.d/b.toml: is larger than 1048576 bytes, together with" in problems(files)[0]


def test_number_of_files_is_bounded(files: Path) -> None:
    for number in range(257):
        (files / f"pools.d/{number}.toml").touch()
    assert "has 257 files; at most 256" in problems(files)[0]
