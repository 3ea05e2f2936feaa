"""Findings of orchctl doctor about given observations."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.files.reachability import Obstacle
from llama_orch.service.exit import ExitStatus
from orchctl.check.findings import Finding, Level
from orchctl.doctor.clock import Clock, clock_sync_findings
from orchctl.doctor.disks import GIB, MIB, Disk, disk_findings
from orchctl.doctor.driver import Driver, Nvml, driver_findings
from orchctl.doctor.engines import Libraries, engine_findings, parse_ldd
from orchctl.doctor.kernel import kernel_findings
from orchctl.doctor.models import ModelFile, Models, Sandbox, hiding, model_findings
from orchctl.doctor.plans import PlanProblem, Plans, PoolPlan, plan_findings
from orchctl.doctor.ports import Port, Ports, parse_listeners, port_findings, ports_of
from orchctl.doctor.site import DAEMONS, TARGET, Site, Unit, Unknown, parse_units
from orchctl.doctor.units import unit_findings
from orchctl.errors import CommandError
from orchctl.journal.entries import Entry

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
NOW = datetime(2026, 11, 30, 20, tzinfo=UTC)


def levels(findings: Iterator[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    assert finding.mend or finding.level is OK, "each problem says what to do"
    return finding


def unit(name: str, **changed: str) -> Unit:
    properties = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"}
    return Unit(name, {**properties, **changed})


RUNNING = {name: unit(name) for name in (*DAEMONS, TARGET)}


def site(pools: Any = (), **changed: Unit) -> Site:
    """Return a machine on which everything runs, with `changed` units (dots and dashes as underscores)."""
    units = {**RUNNING, **{each.name: each for each in changed.values()}}
    return Site(units, {}, pools, root=True)


def bad(found: Site) -> list[Finding]:
    return [finding for finding in unit_findings(found) if finding.level is not OK]


def test_machine_of_a_client_has_no_findings_about_units() -> None:
    assert list(unit_findings(Site())) == []


def test_running_daemons_are_ok() -> None:
    assert levels(unit_findings(site())) == [OK, OK, OK]


def test_stopped_installation_is_one_warning() -> None:
    stopped = {name: unit(name, ActiveState="inactive") for name in (*DAEMONS, TARGET)}
    finding = only(unit_findings(Site(stopped)))
    assert (finding.level, finding.mend) == (WARNING, f"systemctl start {TARGET}")


def test_dead_engine_provisioner_is_a_problem() -> None:
    dead = unit("engine-provisioner.service", ActiveState="inactive")
    (finding,) = bad(site(dead=dead))
    assert (finding.level, finding.mend) == (PROBLEM, "systemctl start engine-provisioner.service")


@pytest.mark.parametrize("changed", [{"ActiveState": "failed", "Result": "exit-code"}, {"ActiveState": "failed"}])
def test_failed_daemon_is_a_problem_with_its_journal(changed: dict[str, str]) -> None:
    (finding,) = bad(site(failed=unit("queen-rbee.service", **changed)))
    assert finding.level is PROBLEM
    assert "journalctl -x -u queen-rbee.service" in finding.mend


def test_engine_provisioner_that_does_not_answer_is_a_problem() -> None:
    (finding,) = bad(site(CommandError("no answer within 5 s", "", ExitStatus.UNAVAILABLE)))
    assert finding.level is PROBLEM
    assert "systemctl restart" in finding.mend


@pytest.mark.parametrize(("status", "level"), [(ExitStatus.NO_PERMISSION, WARNING), (ExitStatus.DATA, PROBLEM)])
def test_refused_question_is_no_dead_daemon(status: ExitStatus, level: Level) -> None:
    (finding,) = bad(site(CommandError("no", "", status)))
    assert finding.level is level
    assert "restart" not in finding.mend


def test_restarting_daemon_is_a_warning() -> None:
    assert [each.level for each in bad(site(a=unit("queen-rbee.service", NRestarts="9")))] == [WARNING]


def test_engine_killed_for_memory_is_a_problem() -> None:
    engine = unit("llama-engine@a.service", ActiveState="failed", Result="oom-kill")
    (finding,) = bad(site(a=engine))
    assert "memory ran out" in finding.text


@pytest.mark.parametrize(
    ("used", "most", "reported"),
    [("95", "100", True), ("50", "100", False), ("95", "infinity", False), ("[not set]", "100", False)],
)
def test_unit_near_its_limit_is_reported(used: str, most: str, reported: bool) -> None:
    slice_ = unit("llama-engines.slice", TasksCurrent=used, TasksMax=most)
    assert [each.subject for each in bad(site(a=slice_))] == (["limits"] if reported else [])


def test_blocks_of_systemctl_are_parsed() -> None:
    found = parse_units("Id=a.service\nMainPID=7\nResult=x=y\n\nId=b.service\nMainPID=18446744073709551615\n\n\n")
    assert (found["a.service"].number("MainPID"), found["a.service"]["Result"]) == (7, "x=y")
    assert found["b.service"].number("MainPID") is None


@pytest.mark.parametrize(
    ("clock", "level", "mend"),
    [
        (Clock(True), OK, ""),
        (Clock(False), WARNING, "timedatectl set-ntp true"),
        (Clock(False, can_synchronize=False), WARNING, "chrony"),
    ],
)
def test_clock_needs_synchronization(clock: Clock, level: Level, mend: str) -> None:
    finding = only(clock_sync_findings(clock))
    assert finding.level is level
    assert mend in finding.mend


SPACIOUS = Disk("/d", 900 * GIB, 1000 * GIB, 10**6)


@pytest.mark.parametrize(
    ("disk", "level"),
    [
        (SPACIOUS, OK),
        (replace(SPACIOUS, free=50 * MIB), PROBLEM),
        (replace(SPACIOUS, free=500 * MIB), WARNING),
        (replace(SPACIOUS, free=500 * MIB, cache=True), PROBLEM),
        (replace(SPACIOUS, free=15 * GIB, cache=True), WARNING),
        (replace(SPACIOUS, free=15 * GIB), OK),
        (replace(SPACIOUS, free=GIB - 1, total=2 * GIB), OK),
        (replace(SPACIOUS, free_files=10), PROBLEM),
        (replace(SPACIOUS, free_files=None), OK),
        (replace(SPACIOUS, read_only=True), PROBLEM),
    ],
)
def test_disk_that_is_nearly_full_is_reported(disk: Disk, level: Level) -> None:
    assert only(disk_findings([disk])).level is level


GPUS = Driver(2, "575.57.08", Nvml(driver="575.57.08", cuda=12090, gpus=2))


@pytest.mark.parametrize(
    ("driver", "level", "words"),
    [
        (GPUS, OK, "NVIDIA 575.57.08, CUDA 12.9, 2 GPUs"),
        (replace(GPUS, module=None), PROBLEM, "module nvidia is not loaded"),
        (replace(GPUS, nvml=Nvml(error="no such file")), PROBLEM, "NVML cannot be loaded: no such file"),
        (replace(GPUS, nvml=Nvml(status=18)), PROBLEM, "library is of another release"),
        (replace(GPUS, nvml=Nvml(driver="580.1", gpus=2)), PROBLEM, "library is of another release"),
        (replace(GPUS, nvml=Nvml(status=9)), PROBLEM, "not loaded"),
        (replace(GPUS, nvml=Nvml(driver="575.57.08", gpus=0)), PROBLEM, "shows none"),
        (replace(GPUS, nvml=Unknown("it hangs")), PROBLEM, "does not answer: it hangs"),
        (replace(GPUS, hardware=0), OK, "2 GPUs"),
    ],
)
def test_driver_and_library_must_fit(driver: Driver, level: Level, words: str) -> None:
    finding = only(driver_findings(driver))
    assert finding.level is level
    assert words in finding.text


def test_machine_without_nvidia_gpu_has_no_finding() -> None:
    assert list(driver_findings(Driver(0, None, Nvml()))) == []


def message(text: str, minute: int = 0) -> Entry:
    return Entry(NOW.replace(minute=minute), "kernel", "error", text)


def test_xids_are_counted_by_gpu_and_code() -> None:
    texts = [f"NVRM: Xid (PCI:0000:0{gpu}:00): {code}, pid=1" for gpu, code in ((1, 79), (1, 79), (2, 13))]
    findings = list(kernel_findings([message(text, minute) for minute, text in enumerate(texts)]))
    assert [finding.level for finding in findings] == [WARNING, WARNING]
    assert "Xid 79 of the GPU PCI:0000:01:00" in findings[0].text
    assert "2 times" in findings[0].text


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("NVRM: API mismatch: the client has the version 580", PROBLEM),
        ("NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.", PROBLEM),
        ("Out of memory: Killed process 12 (llama-server) total-vm:1kB", PROBLEM),
        ("Memory cgroup out of memory: Killed process 12 (llama-server)", PROBLEM),
        ("Out of memory: Killed process 12 (firefox) total-vm:1kB", OK),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  575", OK),
    ],
)
def test_messages_of_the_kernel_are_judged(text: str, level: Level) -> None:
    assert only(kernel_findings([message(text)])).level is level


def test_many_messages_are_few_findings() -> None:
    assert len(list(kernel_findings([message(f"NVRM: API mismatch {number}") for number in range(400)]))) == 5


SS = """\
LISTEN 0 4096 127.0.0.1:8080 0.0.0.0:* users:(("nginx",pid=70,fd=6),("nginx",pid=71,fd=6))
LISTEN 0 4096 [::1]:9090 [::]:* users:(("systemd",pid=1,fd=6))
LISTEN 0 4096 *:9200 *:*
"""


def test_listeners_are_found_in_the_output_of_ss() -> None:
    assert parse_listeners(SS) == {8080: [("nginx", 70), ("nginx", 71)], 9090: [("systemd", 1)], 9200: []}


PORT = Port(8080, "queen-rbee", "ORCHESTRATORD_BIND_ADDR", active=True, pid=5)


@pytest.mark.parametrize(
    ("port", "users", "level"),
    [
        (PORT, [("systemd", 1)], OK),
        (PORT, [("python3", 5)], OK),
        (PORT, [("nginx", 70)], PROBLEM),
        (PORT, [], OK),
        (PORT, None, PROBLEM),
        (replace(PORT, active=False), [], WARNING),
    ],
)
def test_port_of_a_daemon_must_be_its_own(port: Port, users: list[tuple[str, int]] | None, level: Level) -> None:
    listeners = {} if users is None else {8080: users}
    assert only(port_findings(Ports([port], listeners))).level is level


def test_port_of_a_stopped_daemon_may_be_free() -> None:
    assert list(port_findings(Ports([replace(PORT, active=False)], {}))) == []


def test_ports_come_from_the_variables_of_installed_daemons() -> None:
    variables = {"queen-rbee": {"ORCHD_ADDR": "10.0.0.1:81"}, "pool-managerd": {"PROMETHEUS_METRICS_PORT": "82"}}
    found = Site(RUNNING, variables)
    assert [port.number for port in ports_of(found)] == [81, 9090, 9200, 82]
    assert ports_of(Site()) == []


@pytest.mark.parametrize(
    ("path", "properties", "reason"),
    [
        ("/home/a/m.gguf", {"ProtectHome": "yes"}, "ProtectHome=yes"),
        ("/root/m.gguf", {"ProtectHome": "tmpfs"}, "ProtectHome=tmpfs"),
        ("/home/a/m.gguf", {"ProtectHome": "read-only"}, None),
        ("/homes/m.gguf", {"ProtectHome": "yes"}, None),
        ("/tmp/m.gguf", {"PrivateTmp": "yes"}, "PrivateTmp=yes"),
        ("/srv/m.gguf", {"PrivateTmp": "yes", "ProtectHome": "yes"}, None),
        ("/srv/m.gguf", {"InaccessiblePaths": "-/boot /srv"}, "InaccessiblePaths=/srv"),
        ("/srv/m.gguf", {}, None),
    ],
)
def test_property_that_hides_a_model_is_named(path: str, properties: dict[str, str], reason: str | None) -> None:
    assert hiding(path, properties) == reason


def test_models_out_of_reach_are_problems_with_commands() -> None:
    obstacle = Obstacle(Path("/srv/b"), True, "llama-engine", 0o700)
    files = [
        ModelFile("gone", "/srv/gone.gguf", exists=False),
        ModelFile("hidden", "/tmp/hidden.gguf"),
        ModelFile("denied", "/srv/b/m.gguf", obstacles={"llama-engine@.service": obstacle}),
        ModelFile("fine", "/srv/m.gguf"),
    ]
    found = list(model_findings(Models(files, [Sandbox("llama-engine@.service", {"PrivateTmp": "yes"})])))
    assert [(finding.level, finding.subject) for finding in found] == [
        (PROBLEM, "pool gone"),
        (PROBLEM, "pool hidden"),
        (PROBLEM, "pool denied"),
    ]
    assert "systemctl edit llama-engine@.service" in found[1].mend
    assert found[2].mend == "chmod o+x /srv/b"


def test_models_within_reach_are_ok() -> None:
    assert only(model_findings(Models([ModelFile("a", "/srv/a")], []))).level is OK
    assert list(model_findings(Models())) == []


LDD = """\
/e/llama-server:
\tlinux-vdso.so.1 (0x00007ffd)
\tlibcudart.so.12 => not found
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)
/e/libggml-cpu.so:
\tlibgomp.so.1 => /lib/libgomp.so.1 (0x0)
"""


def test_missing_libraries_are_named_for_each_file() -> None:
    found = parse_ldd(LDD, ["/e/llama-server", "/e/libggml-cpu.so"])
    assert found == [Libraries("/e/llama-server", ("libcudart.so.12",)), Libraries("/e/libggml-cpu.so", ())]
    finding = only(engine_findings(found))
    assert (finding.level, "libcudart.so.12" in finding.text, "CUDA" in finding.mend) == (PROBLEM, True, True)


def test_output_of_ldd_for_one_file_has_no_name() -> None:
    text = "./x: /lib/libm.so.6: version `GLIBC_2.38' not found (required by ./x)\n\tlibx.so => not found\n"
    (found,) = parse_ldd(text, ["/e/x"])
    assert found.missing == ("libx.so", "version `GLIBC_2.38' not found (required by ./x)")
    assert only(engine_findings([Libraries("/e/x", ())])).level is OK


def test_problem_of_a_serving_pool_is_a_warning() -> None:
    gone = PlanProblem(message="building needs cmake", hint="Install it: apt install cmake")
    pools = [PoolPlan(pool_id=state, mode="source", state=state, problems=[gone]) for state in ("failed", "ready")]
    findings = list(plan_findings(Plans(pools=pools)))
    assert [finding.level for finding in findings] == [PROBLEM, WARNING]
    assert findings[0].mend == "Install it: apt install cmake"


def test_invalid_pools_files_are_a_problem() -> None:
    assert only(plan_findings(Plans(refusal="pools.toml:12: no"))).level is PROBLEM
    assert only(plan_findings(Plans(pools=[PoolPlan(pool_id="a", mode="binary")]))).level is OK


@given(st.text())
def test_parsers_accept_any_text(text: str) -> None:
    parse_units(text)
    parse_listeners(text)
    parse_ldd(text, ["/a", "/b"])
    list(kernel_findings([message(text)]))
