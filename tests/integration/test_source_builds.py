"""engine-provisioner builds an engine from source: killed midway, twice at once, and with a source that is broken.

The source is a small imitation of llama.cpp's tree; git, cmake, ninja and the compiler are real.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest

from llama_orch.contracts.pools import PoolState
from tests.engines import toy_engine
from tests.engines.fixtures import skip_or_fail
from tests.integration.home import free_port
from tests.integration.provisioner import Provisioner, provisioner, start


@pytest.fixture(autouse=True)
def tools() -> None:
    if absent := [name for name in ("git", "cmake", "ninja", "cc", "c++") if shutil.which(name) is None]:
        skip_or_fail(f"{', '.join(absent)} missing; apt-get install git cmake ninja-build g++")


def pool_entry(tree: Path, model: Path, pool_id: str = "default") -> str:
    """Return the pools.toml entry of a pool whose engine is built from the branch main of `tree`."""
    mode = ['mode = "source"', f'repo = "file:{tree}"', 'ref = "main"']
    head = ["[[pools]]", f'id = "{pool_id}"', f'model = "file:{model}"', f"ports = [{free_port()}]"]
    return "\n".join([*head, "[pools.provisioning]", *mode, ""])


def processes_in(directory: Path) -> list[str]:
    """Return the command lines of processes that work in `directory` or were given a path there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(directory) in f"{os.readlink(process / 'cwd')} {command}" and int(process.name) != os.getpid():
                found.append(command)
        except OSError:
            continue
    return found


def compiled(cache: Path) -> dict[str, int]:
    """Return when each object file was written."""
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("builds/*/build-*/CMakeFiles/**/*.o")}


async def test_build_killed_midway_continues_without_orphans(tmp_path: Path, tiny_model: Path) -> None:
    tree = toy_engine.write_project(tmp_path / "toy", more=toy_engine.gate(tmp_path))
    toy_engine.commit(tree)
    pools = pool_entry(tree, tiny_model)
    (tmp_path / "pools.toml").write_text(pools)
    process = await start(tmp_path)
    first = Provisioner(tmp_path, process)
    await first.until((tmp_path / "reached").exists)
    process.kill()
    await process.wait()
    await first.until(lambda: not processes_in(tmp_path / "cache"))
    before = compiled(tmp_path / "cache")
    assert before
    assert not (tmp_path / "cache/engines").exists()
    (tmp_path / "open").touch()
    async with provisioner(tmp_path, pools) as daemon:
        handoff = await daemon.ready("default")
        assert (handoff.provisioning_mode, handoff.engine_version) == ("source", "1 (toy)")
    after = compiled(tmp_path / "cache")
    assert {name: after[name] for name in before} == before
    assert '"version": "1 (toy)"' in next((tmp_path / "cache/engines").glob("*/engine.json")).read_text()


async def test_stopped_daemon_leaves_no_compilers(tmp_path: Path, tiny_model: Path) -> None:
    tree = toy_engine.write_project(tmp_path / "toy", more=toy_engine.gate(tmp_path))
    toy_engine.commit(tree)
    async with provisioner(tmp_path, pool_entry(tree, tiny_model)) as daemon:
        await daemon.until((tmp_path / "reached").exists)
        assert processes_in(tmp_path / "cache")
    assert processes_in(tmp_path / "cache") == []


async def test_two_daemons_build_once(tmp_path: Path, tiny_model: Path) -> None:
    tree = toy_engine.write_project(tmp_path / "toy", more=toy_engine.gate(tmp_path))
    toy_engine.commit(tree)
    one, other = tmp_path / "a", tmp_path / "b"
    one.mkdir()
    other.mkdir()
    shared = {"ENGINE_PROVISIONER_CACHE_DIR": str(tmp_path / "cache")}
    pools = [pool_entry(tree, tiny_model, name) for name in ("a", "b")]
    async with (
        provisioner(one, "\n".join(pools), **shared) as first,
        provisioner(other, pool_entry(tree, tiny_model, "c"), **shared) as second,
    ):
        await first.until((tmp_path / "reached").exists)
        await second.until(lambda: second.state("c") is PoolState.PROVISIONING)
        (tmp_path / "open").touch()
        for daemon, pool_id in ((first, "a"), (first, "b"), (second, "c")):
            await daemon.ready(pool_id)
    engines = [path for path in (tmp_path / "cache/engines").iterdir() if path.name.startswith("source-")]
    logs = list((tmp_path / "cache").glob("builds/*/build-*.log"))
    assert (len(engines), len(logs)) == (1, 1)
    assert logs[0].read_text().count("Linking C executable") + logs[0].read_text().count("Linking CXX executable") == 1


async def test_failed_build_is_shown_and_not_repeated_at_once(tmp_path: Path, tiny_model: Path) -> None:
    tree = toy_engine.write_project(tmp_path / "toy")
    (tree / "server.c").write_text("int main() { return undeclared; }\n")
    toy_engine.commit(tree)
    async with provisioner(tmp_path, pool_entry(tree, tiny_model)) as daemon:
        error = await daemon.failed("default")
        assert "undeclared" in error
        assert "The whole log: " in error
        report = daemon.report("default")
        assert report is not None
        assert report.detail == "tried again in 60 s"
        assert not list((tmp_path / "cache").glob("engines/source-*"))


async def test_killed_engine_of_source_is_started_without_a_build(tmp_path: Path, tiny_model: Path) -> None:
    tree = toy_engine.write_project(tmp_path / "toy")
    toy_engine.commit(tree)
    async with provisioner(tmp_path, pool_entry(tree, tiny_model)) as daemon:
        first = await daemon.ready("default")
        assert first.pid is not None
        [log] = (tmp_path / "cache").glob("builds/*/build-*.log")
        built = log.stat().st_mtime_ns
        os.kill(first.pid, signal.SIGKILL)
        await daemon.until(lambda: (now := daemon.handoff("default")) is not None and now.pid != first.pid)
        assert log.stat().st_mtime_ns == built
