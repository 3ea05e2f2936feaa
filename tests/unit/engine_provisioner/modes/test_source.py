"""Mode source with a real git, cmake and compiler, and a small imitation of llama.cpp's tree."""

import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from engine_provisioner import engine_record
from engine_provisioner.build import compilation
from engine_provisioner.build.checkout import Repository
from engine_provisioner.engine import Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes.source import SourceMode
from engine_provisioner.step_deadline import StepDeadline
from tests.engines import toy_engine
from tests.engines.fixtures import skip_or_fail
from tests.unit.engine_provisioner.fetching import acquirer
from tests.unit.engine_provisioner.file_server import FileServer, serving
from tests.unit.engine_provisioner.pools import pool


@pytest.fixture(autouse=True)
def tools() -> None:
    if absent := [name for name in ("git", "cmake", "ninja", "make", "cc", "c++") if shutil.which(name) is None]:
        skip_or_fail(f"{', '.join(absent)} missing; apt-get install git cmake ninja-build g++ make")


class Site:
    """A source tree, its repository and a cache directory."""

    def __init__(self, directory: Path) -> None:
        self.tree = toy_engine.write_project(directory / "toy")
        self.cache = directory / "cache"
        self.reports: list[str] = []

    async def report(self, text: str) -> None:
        self.reports.append(text)

    async def obtain(self, gpus: tuple[int, ...] = (), **keys: Any) -> Program:
        """Obtain the engine as the first pool of a daemon that has just started does."""
        if "archive" not in keys:
            keys.setdefault("repo", f"file:{self.tree}")
        wanted = pool(provisioning={"mode": "source", **keys})
        return await acquirer(self.cache).program(wanted, StepDeadline("default"), self.report, gpus)

    def engines(self) -> list[Path]:
        return sorted((self.cache / "engines").glob("*"))

    def builds(self) -> int:
        return sum(report.startswith("building the engine from") for report in self.reports)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def version(program: Program) -> str:
    return subprocess.run([*program.argv, "--version"], check=True, capture_output=True, text=True).stdout.strip()


async def test_branch_is_built_once_and_again_when_it_moves(site: Site) -> None:
    first = toy_engine.commit(site.tree)
    program = await site.obtain(ref="main")
    again = await site.obtain(ref="main")
    assert (program, site.builds()) == (again, 1)
    toy_engine.write_name(site.tree, "newer")
    second = toy_engine.commit(site.tree)
    assert version(await site.obtain(ref="main")) == "version: 1 (newer)"
    assert version(await site.obtain(ref=first)) == "version: 1 (toy)"
    records = [engine_record.read(each) for each in site.engines()]
    assert {record.commit for record in records if record} == {first, second}


async def test_tag_commit_and_default_branch_share_an_engine(site: Site) -> None:
    commit = toy_engine.commit(site.tree, tag="b1")
    programs = {(await site.obtain(ref=ref)).argv for ref in (None, "b1", commit, commit[:9])}
    assert (len(programs), site.builds()) == (1, 1)


async def test_old_commit_of_shallow_clone_is_found(site: Site) -> None:
    first = toy_engine.commit(site.tree)
    toy_engine.write_name(site.tree, "newer")
    toy_engine.commit(site.tree)
    await site.obtain(ref="main")
    assert version(await site.obtain(ref=first[:10])) == "version: 1 (toy)"


async def test_changed_file_alone_is_compiled_again(site: Site) -> None:
    toy_engine.commit(site.tree)
    await site.obtain(ref="main")
    toy_engine.write_name(site.tree, "newer")
    toy_engine.commit(site.tree)
    await site.obtain(ref="main")
    [log] = site.cache.glob("builds/*/build-*.log")
    text = log.read_text()
    assert "name.c" in text
    assert "server.c" not in text


async def test_record_says_how_the_engine_was_made(site: Site) -> None:
    commit = toy_engine.commit(site.tree)
    program = await site.obtain(ref="main", build={"cmake_flags": ["-DX=1"], "generator": "Unix Makefiles"})
    assert program.record is not None
    record = engine_record.read(program.record)
    assert record is not None
    assert (record.mode, record.commit, record.ref, record.generator) == ("source", commit, "main", "Unix Makefiles")
    assert "-DX=1" in record.flags
    assert len(record.compilers) == 2
    assert record.digest is not None
    assert record.digest.startswith("sha256:")


async def test_shared_libraries_are_found_beside_the_engine(site: Site, tmp_path: Path) -> None:
    toy_engine.write_project(site.tree, library="SHARED")
    toy_engine.commit(site.tree)
    program = await site.obtain()
    shutil.rmtree(site.cache / "builds")
    assert version(program) == "version: 1 (toy)"


async def test_changed_executable_is_built_again(site: Site) -> None:
    toy_engine.commit(site.tree)
    program = await site.obtain()
    program.file.write_text("#!/bin/sh\n")
    assert version(await site.obtain()) == "version: 1 (toy)"


async def test_archive_is_built_without_git(site: Site, tmp_path: Path) -> None:
    archive = toy_engine.pack(site.tree, tmp_path / "toy.tar.gz")
    program = await site.obtain(archive=f"file:{archive}")
    assert version(program) == "version: 1 (toy)"
    toy_engine.write_name(site.tree, "newer")
    toy_engine.pack(site.tree, archive)
    assert version(await site.obtain(archive=f"file:{archive}")) == "version: 1 (newer)"


async def test_archive_of_a_server_is_fetched_once(site: Site, tmp_path: Path) -> None:
    content = toy_engine.pack(site.tree, tmp_path / "toy.tar.gz").read_bytes()
    async with serving(FileServer(content)) as server:
        for _ in range(2):
            program = await site.obtain(archive=server.url)
        assert len(server.requests) == 1
    assert version(program) == "version: 1 (toy)"


async def test_archive_with_wrong_checksum_is_not_built(site: Site, tmp_path: Path) -> None:
    archive = toy_engine.pack(site.tree, tmp_path / "toy.tar.gz")
    with pytest.raises(ProvisioningFailure, match="has the checksum"):
        await site.obtain(archive=f"file:{archive}", checksum=f"sha256:{'0' * 64}")
    assert site.builds() == 0


async def test_submodules_are_fetched_if_asked_for(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "CMakeLists.txt").write_text("message(STATUS other)\n")
    toy_engine.commit(other)
    toy_engine.write_project(site.tree, more="add_subdirectory(other)")
    toy_engine.git(site.tree, "init", "--quiet", "--initial-branch=main")
    toy_engine.git(site.tree, "-c", "protocol.file.allow=always", "submodule", "add", f"file://{other}", "other")
    toy_engine.commit(site.tree)
    with pytest.raises(ProvisioningFailure, match="cmake failed"):
        await site.obtain()
    assert version(await site.obtain(submodules=True)) == "version: 1 (toy)"


async def test_failing_build_shows_last_lines_and_log(site: Site) -> None:
    (site.tree / "server.c").write_text("int main() { return undeclared; }\n")
    toy_engine.commit(site.tree)
    with pytest.raises(ProvisioningFailure, match="undeclared") as caught:
        await site.obtain()
    assert caught.value.retry is Retry.AFTER_FIX
    [log] = site.cache.glob("builds/*/build-*.log")
    assert f"The whole log: {log}" in str(caught.value)
    assert "undeclared" in log.read_text()
    assert site.engines() == []


async def test_tree_without_the_target_is_a_failure(site: Site) -> None:
    (site.tree / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.14)\nproject(x C CXX)\n")
    toy_engine.commit(site.tree)
    with pytest.raises(ProvisioningFailure, match="llama-server"):
        await site.obtain()


async def test_unknown_ref_is_named(site: Site) -> None:
    toy_engine.commit(site.tree)
    with pytest.raises(ProvisioningFailure, match="has no branch, tag or commit b9999") as caught:
        await site.obtain(ref="b9999")
    assert caught.value.retry is Retry.AFTER_FIX


async def test_last_engine_is_used_while_repository_is_away(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit = toy_engine.commit(site.tree)
    program = await site.obtain(ref="main")
    site.tree.rename(tmp_path / "away")
    with caplog.at_level(logging.WARNING):
        assert await site.obtain(ref="main") == program
    assert f"using the engine built from {commit[:12]}" in caplog.text
    with pytest.raises(ProvisioningFailure, match="cannot look up other"):
        await site.obtain(ref="other")


async def test_missing_tools_are_named_unless_engine_is_built(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_engine.commit(site.tree)
    program = await site.obtain(ref="main")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await site.obtain(ref="main") == program
    with pytest.raises(ProvisioningFailure, match="needs git, cmake, ninja, cc, c\\+\\+, which are not installed"):
        await site.obtain(ref="other")


async def test_pool_with_gpus_needs_the_cuda_compiler(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_engine.commit(site.tree)
    for tool in ("git", "cmake", "ninja", "cc", "c++"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("engine_provisioner.build.toolchain.CUDA_DIRECTORY", tmp_path)
    with pytest.raises(ProvisioningFailure, match=r"needs nvcc, .*\(CUDA: GPU 0 of the pool\)"):
        await site.obtain(gpus=(0,))


async def test_pools_that_want_the_same_build_share_it(site: Site) -> None:
    toy_engine.commit(site.tree)
    found: list[Program] = []

    async def get(name: str) -> None:
        wanted = pool(id=name, provisioning={"mode": "source", "repo": f"file:{site.tree}", "ref": ref[name]})
        found.append(await shared.program(wanted, StepDeadline(name), site.report))

    shared, ref = acquirer(site.cache), {"a": "main", "b": "main", "c": "HEAD"}
    async with trio.open_nursery() as nursery:
        for name in ref:
            nursery.start_soon(get, name)
    assert (len({program.argv for program in found}), site.builds()) == (1, 1)


def test_half_written_objects_of_make_are_compiled_again(tmp_path: Path) -> None:
    old, fresh = tmp_path / "old.o", tmp_path / "fresh.o"
    old.touch()
    fresh.touch()
    os.utime(old, (1_000_000, 1_000_000))
    compilation._remove_recent(tmp_path)
    assert (old.exists(), fresh.exists()) == (True, False)


SECRET_REPO = Repository("https://me:geheim@host.example/x.git")


def test_credentials_are_in_the_configuration_file_only() -> None:
    assert SECRET_REPO.shown == "https://host.example/x.git"
    assert "geheim" not in SECRET_REPO.config()  # in base64
    assert "extraHeader = Authorization: Basic" in SECRET_REPO.config()


def test_submodules_of_remote_repository_cannot_read_files() -> None:
    assert "file" not in SECRET_REPO.protocols.split(":")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, "mode source needs either repo or archive"),
        ({"repo": "https://h/x", "archive": "https://h/x.tar"}, "mode source needs either repo or archive"),
        ({"archive": "https://h/x.tar", "ref": "main"}, "is for repo only"),
        ({"archive": "http://h/x.tar"}, "plain http is allowed with a checksum"),
        ({"repo": "https://h/x", "checksum": f"sha256:{'0' * 64}"}, "is for archive only"),
    ],
)
def test_contradicting_keys_are_refused(keys: dict[str, str], problem: str) -> None:
    found = list(SourceMode.model_validate({"mode": "source", **keys}).problems())
    assert problem in found[0][1]


@pytest.mark.parametrize(
    "keys",
    [
        {"repo": "git@host.example:x.git"},
        {"repo": "git://host.example/x"},
        {"repo": "http://host.example/x"},
        {"repo": "ext::sh -c id"},
        {"repo": "https://h/x", "ref": "--upload-pack=id"},
        {"repo": "https://h/x", "ref": "a..b"},
        {"repo": "https://h/x", "build": {"cmake_flags": ["-B/tmp"]}},
        {"repo": "https://h/x", "build": {"cmake_flags": ["--install=/"]}},
        {"repo": "https://h/x", "build": {"cmake_flags": ["GGML_CUDA=ON"]}},
        {"repo": "https://h/x", "build": {"cache_dir": "relative"}},
    ],
)
def test_unsafe_values_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SourceMode.model_validate({"mode": "source", **keys})
