"""orchctl doctor end to end: observations by programs of the system, limits, output and exit status."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from orchctl.check import local_node
from orchctl.check.findings import Level, ok
from orchctl.doctor import driver, site
from orchctl.doctor.checks import CHECKS, Check, machine_findings
from orchctl.doctor.clock import observe_clock
from orchctl.doctor.driver import Driver, Nvml, observe_driver
from orchctl.doctor.engines import Libraries, observe_engines
from orchctl.doctor.kernel import observe_kernel
from orchctl.doctor.plans import Plans, observe_plans
from orchctl.doctor.ports import Ports, observe_ports
from orchctl.doctor.site import DAEMONS, Site, Unit, Unknown
from tests.unit.orchctl.check.test_check import cluster
from tests.unit.orchctl.imitation_tools import Tools, journal_lines
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import serve

LOADED = {name: Unit(name, {"LoadState": "loaded", "ActiveState": "active"}) for name in DAEMONS}


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """A PATH without programs, and no daemons of this machine."""
    monkeypatch.setattr(local_node, "POOL_MANAGERD_SOCKET", tmp_path / "none")
    monkeypatch.setattr(local_node, "ID_FILES", (tmp_path / "none",))
    monkeypatch.setattr(site, "find_socket", lambda: None)
    monkeypatch.setattr(driver, "PCI", tmp_path / "none")
    monkeypatch.setattr(driver, "MODULE", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    return Tools(tmp_path)


def test_healthy_machine_exits_0_and_repeats_check(tools: Tools) -> None:
    tools.add("timedatectl", "NTPSynchronized=yes\nCanNTP=yes\n")
    tools.add("journalctl", status=1)
    tools.add("ss")
    with serve(cluster()) as queen:
        checked, found = (run(name, "--url", queen.url, PATH=tools.path) for name in ("check", "doctor"))
    assert (found.status, found.err) == (0, "")
    assert found.out.startswith(checked.out)
    assert "ok       clock: this machine's clock is synchronized" in found.out


def test_problem_of_the_machine_exits_69(tools: Tools) -> None:
    tools.add("journalctl", journal_lines({"MESSAGE": "Out of memory: Killed process 12 (llama-server)"}))
    with serve(cluster()) as queen:
        result = run("doctor", "--json", "--url", queen.url, PATH=tools.path)
    document = json.loads(result.out)
    assert result.status == 69
    assert document["problems"] == 1
    (finding,) = (each for each in document["findings"] if each["level"] == "problem")
    assert finding["subject"] == "kernel"
    assert finding["mend"]


def test_machine_is_checked_without_queen(tools: Tools) -> None:
    tools.add("timedatectl", "NTPSynchronized=no\nCanNTP=yes\n")
    with serve({}) as queen:
        pass
    out = run("doctor", "--url", queen.url, PATH=tools.path).out
    assert "warning  clock: this machine's clock is not synchronized. timedatectl set-ntp true" in out


def test_missing_programs_are_checks_that_were_not_made(tools: Tools) -> None:
    with serve(cluster()) as queen:
        result = run("doctor", "--url", queen.url, PATH=tools.path)
    assert result.status == 0
    for subject, program in (("clock", "timedatectl"), ("kernel", "journalctl"), ("ports", "ss")):
        assert f"warning  {subject}: not checked: {program} is not installed" in result.out


async def test_check_that_hangs_ends_after_its_limit(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_nothing() -> Site:
        return Site()

    async def hang(_site: Site) -> None:
        await trio.sleep_forever()

    async def answer(_site: Site) -> str:
        return "fine"

    monkeypatch.setattr(site, "find_site", find_nothing)
    quickly = Check("quick", answer, lambda text: iter([ok("quick", text)]))
    given = (Check("slow", hang, lambda _found: iter(())), quickly)
    began = trio.current_time()
    slow, quick = await machine_findings(given)
    assert trio.current_time() - began == pytest.approx(site.LIMIT_S)
    assert (slow.level, slow.text) == (Level.WARNING, "not checked: no result within 5 s")
    assert quick.text == "fine"


def test_every_check_has_its_own_subject() -> None:
    assert len({check.subject for check in CHECKS}) == len(CHECKS)


async def test_clock_of_a_container_is_unknown(tools: Tools) -> None:
    tools.add("timedatectl", err="System has not been booted with systemd\n", status=1)
    assert await observe_clock(Site()) == Unknown("System has not been booted with systemd")


async def test_kernel_messages_need_permission(tools: Tools) -> None:
    tools.add("journalctl", err="Hint: You are currently not seeing messages from other users and the system.\n")
    found = await observe_kernel(Site())
    assert isinstance(found, Unknown)
    assert "sudo" in found.mend
    assert "--boot" in tools.calls("journalctl")[0]


async def test_engines_are_looked_at_as_their_user(tools: Tools, tmp_path: Path) -> None:
    engine = tmp_path / "cache/engines/b1/bin/llama-server"
    engine.parent.mkdir(parents=True)
    engine.touch()
    tools.add("setpriv", "\tlibcudart.so.12 => not found\n")
    tools.add("ldd", "\tlibcublas.so.12 => not found\n", status=1)
    variables = {"engine-provisioner": {"ENGINE_PROVISIONER_CACHE_DIR": str(tmp_path / "cache")}}
    as_user = await observe_engines(Site(LOADED, variables))
    as_root = await observe_engines(Site(LOADED, variables, root=True))
    assert as_user == [Libraries(str(engine), ("libcublas.so.12",))]
    assert as_root == [Libraries(str(engine), ("libcudart.so.12",))]
    words = tools.calls("setpriv")[0]
    assert "--reuid=llama-engine" in words
    assert words[-3:] == ["ldd", "--", str(engine)]


async def test_plan_of_engine_provisioner_is_read(tools: Tools) -> None:
    document = {"exit_status": 69, "pools": [{"pool_id": "a", "mode": "source", "state": None, "problems": []}]}
    tools.add("engine-provisioner", json.dumps(document), status=69)
    found = await observe_plans(Site(LOADED, root=True))
    assert isinstance(found, Plans)
    assert found.pools[0].pool_id == "a"
    tools.add("engine-provisioner", err="pools.toml:1: no\n", status=78)
    assert await observe_plans(Site(LOADED, root=True)) == Plans(refusal="pools.toml:1: no")
    assert isinstance(await observe_plans(Site(LOADED)), Unknown)
    assert await observe_plans(Site()) == Plans()


async def test_ports_are_observed_by_ss(tools: Tools) -> None:
    tools.add("ss", 'LISTEN 0 1 127.0.0.1:8080 0.0.0.0:* users:(("nginx",pid=7,fd=1))\n')
    found = await observe_ports(Site(LOADED))
    assert isinstance(found, Ports)
    assert found.listeners == {8080: [("nginx", 7)]}
    assert len(found.ports) == 4


def gpu_on_bus(directory: Path, patch: pytest.MonkeyPatch) -> None:
    device = directory / "pci/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    patch.setattr(driver, "PCI", directory / "pci")
    (directory / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  575.57.08  Sat May 24\n")
    patch.setattr(driver, "MODULE", directory / "version")


async def test_driver_is_probed_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_on_bus(tmp_path, monkeypatch)
    monkeypatch.setattr(driver, "PROBE", 'print(\'{"driver": "575.57.08", "gpus": 1}\')')
    assert await observe_driver(Site()) == Driver(1, "575.57.08", Nvml(driver="575.57.08", gpus=1))
    monkeypatch.setattr(driver, "PROBE", "import os; os.abort()")
    crashed = await observe_driver(Site())
    assert isinstance(crashed, Driver)
    assert isinstance(crashed.nvml, Unknown)


async def test_probe_reports_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_on_bus(tmp_path, monkeypatch)
    monkeypatch.setattr(driver, "PROBE", driver.PROBE.replace("libnvidia-ml.so.1", "libno-such.so.1"))
    found = await observe_driver(Site())
    assert isinstance(found, Driver)
    assert isinstance(found.nvml, Nvml)
    assert "libno-such.so.1" in (found.nvml.error or "")
