"""Engines in containers (a real llama-server, a real podman) and from source (an imitation of its tree), as units."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines import toy_engine
from tests.engines.fixtures import skip_or_fail
from tests.system.conftest import TINY
from tests.system.lab import images
from tests.system.lab.client import complete
from tests.system.lab.container import booted
from tests.system.lab.machine import POOLS_FILE, PROVISIONER_ENV, TARGET, Machine
from tests.system.lab.rootfs import BUILD_TOOLS, PODMAN, RootfsUnavailable
from tests.system.lab.waiting import until

RELEASE = "bookworm"
"""With the older podman, whose faults were more."""

UNIT = "llama-engine-container@default.service"
SERVER = "libexec/[s]erver"
"""A pattern that does not match the command line with it."""
TOY = "/srv/toy"
LAUNCH_DIR = "/run/llama-orch/launch"
PROVISIONER = ("engine-provisioner-local.socket", "engine-provisioner.service")
"""The socket too, because pool-managerd asks through it, which would start the daemon again."""
LOWEST_PRIORITY = 19

CONTAINER_POOL = f"""\
[[pools]]
id = "default"
model = "file:{TINY}"
ctx = 512
[pools.provisioning]
mode = "container"
image = "{images.IMAGE}"
tag = "{images.TAG}"
"""
MISSING_POOL = f"""\
[[pools]]
id = "missing"
model = "file:{TINY}"
[pools.provisioning]
mode = "container"
image = "localhost/no-such-image"
"""
SOURCE_POOL = f"""\
[[pools]]
id = "built"
model = "file:{TINY}"
[pools.provisioning]
mode = "source"
repo = "file:{TOY}"
ref = "main"
"""


@pytest.fixture(scope="module")
def machine(suite: str, deb: Path, tiny_model: Path) -> Iterator[Machine]:
    """A machine with podman, build tools, the package, and an image, that serves a pool in a container."""
    try:
        with booted(suite, "modes", packages=BUILD_TOOLS + PODMAN) as container:
            found = Machine(container)
            found.install(deb)
            images.prepare(container)
            images.import_image(container)
            container.write(TINY, tiny_model.read_bytes())
            found.set_variable(PROVISIONER_ENV, "ENGINE_PROVISIONER_GPU_MASK", "cpu")
            container.write(POOLS_FILE, CONTAINER_POOL)
            found.systemctl("start", TARGET)
            found.wait_until_served("default")
            yield found
    except RootfsUnavailable as error:
        skip_or_fail(f"podman and build tools cannot be installed: {error}")


def processes(machine: Machine, pattern: str) -> list[str]:
    """Return the pids of the processes whose command line matches `pattern`."""
    return machine.container.run("pgrep", "--full", pattern).stdout.split()


def containers(machine: Machine) -> list[str]:
    return machine.container.check("podman", "ps", "--all", "--quiet").split()


def assert_serving_once(machine: Machine, before: list[str]) -> None:
    """Check that another engine serves, and that it is the only one."""
    until(
        lambda: (now := processes(machine, SERVER)) and now != before and machine.pool("default").get("ready"),
        "another engine to serve",
        60,
        machine.recent,
    )
    assert complete(machine.queen, placement={"mode": "pin", "pin_pool_id": "default"}).last.name == "end"
    assert len(processes(machine, SERVER)) == 1
    assert len(machine.container.run("pgrep", "--exact", "conmon").stdout.split()) == 1
    assert len(containers(machine)) == 1


def status_of(machine: Machine, pid: str) -> dict[str, str]:
    text = machine.container.check("cat", f"/proc/{pid}/status")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_container_has_rights_of_native_engines(machine: Machine) -> None:
    [pid] = processes(machine, SERVER)
    status = status_of(machine, pid)
    uid = machine.container.check("id", "--user", "llama-engine").strip()
    assert set(status["Uid"].split()) == {uid}
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    mounts = [line.split() for line in machine.container.check("cat", f"/proc/{pid}/mountinfo").splitlines()]
    options = {fields[4]: fields[5].split(",") for fields in mounts}
    assert "ro" in options["/"]
    assert "ro" in options["/models"]


def test_container_and_conmon_are_in_the_unit(machine: Machine) -> None:
    group = machine.show(UNIT, "ControlGroup")
    pids = machine.container.check("sh", "-c", f"cat /sys/fs/cgroup/*/{group}/cgroup.procs || true").split()
    pids += machine.container.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs").stdout.split()
    assert {*processes(machine, SERVER), machine.show(UNIT, "MainPID")} <= set(pids)


def test_version_and_digest_of_the_image_are_reported(machine: Machine) -> None:
    assert "build" in machine.pool("default")["engine_version"]
    record = machine.container.check("sh", "-c", "cat /var/cache/llama-orch/engines/container-*/engine.json")
    assert '"digest": "sha256:' in record


@pytest.mark.parametrize(
    "kill",
    [
        ("pkill", "-KILL", "--full", SERVER),
        ("pkill", "-KILL", "--exact", "conmon"),
        ("systemctl", "kill", "--signal=KILL", UNIT),
    ],
    ids=" ".join,
)
def test_killed_container_is_replaced_by_one_engine(machine: Machine, kill: tuple[str, ...]) -> None:
    before = processes(machine, SERVER)
    machine.container.check(*kill)
    assert_serving_once(machine, before)


def test_container_is_adopted_after_restart_of_the_daemon(machine: Machine) -> None:
    """It also forgets the crashes before, which would delay the next starts by up to a minute."""
    before = processes(machine, SERVER)
    machine.systemctl("restart", "engine-provisioner")
    machine.wait_until_served("default")
    assert processes(machine, SERVER) == before


@pytest.mark.parametrize(
    "stop",
    [
        ("systemctl", "stop", UNIT),
        ("podman", "kill", "llama-engine-default"),
        ("podman", "rm", "--force", "--time", "0", "llama-engine-default"),
    ],
    ids=" ".join,
)
def test_stopped_container_is_replaced_by_one_engine(machine: Machine, stop: tuple[str, ...]) -> None:
    before = processes(machine, SERVER)
    machine.container.check(*stop)
    assert_serving_once(machine, before)


def test_stopped_target_leaves_no_container(machine: Machine, undo: Callable[..., object]) -> None:
    undo(machine.wait_until_served, "default")
    undo(machine.systemctl, "start", TARGET)
    machine.systemctl("stop", TARGET)
    # systemctl waits for the target only
    until(lambda: machine.show(UNIT, "ActiveState") in ("inactive", "failed"), "the engine's unit to stop", 30)
    assert (processes(machine, SERVER), processes(machine, "^/usr/bin/conmon"), containers(machine)) == ([], [], [])


def test_removed_pool_leaves_no_container(machine: Machine, undo: Callable[..., object]) -> None:
    undo(machine.wait_until_served, "default")
    undo(machine.systemctl, "restart", "engine-provisioner")
    undo(machine.container.write, POOLS_FILE, CONTAINER_POOL)
    machine.container.write(POOLS_FILE, "")
    machine.systemctl("restart", "engine-provisioner")
    until(lambda: not containers(machine), "the container to be removed", 30, machine.recent)
    assert processes(machine, SERVER) == []


def test_unit_mounts_no_directory_closed_to_engines(machine: Machine, undo: Callable[..., object]) -> None:
    """Files in a closed directory may be readable for all: the mount must not go around the directory."""
    undo(machine.wait_until_served, "default")
    undo(machine.systemctl, "start", *PROVISIONER)
    machine.systemctl("stop", *PROVISIONER, UNIT)
    machine.container.check("sh", "-c", f"mkdir -p /srv/closed/models && cp {TINY} /srv/closed/models")
    undo(machine.container.check, "rm", "-r", "/srv/closed")
    launch = f"{LAUNCH_DIR}/default.json"
    machine.container.check("sed", "-i", 's#"models": ".*"#"models": "/srv/closed/models"#', launch)
    machine.systemctl("start", UNIT)
    machine.systemctl("stop", UNIT)
    machine.container.check("chmod", "700", "/srv/closed")
    assert machine.container.run("systemctl", "start", UNIT).status != 0
    assert "Permission denied: '/srv/closed/models'" in machine.messages(f"--unit={UNIT}", "--lines=20")
    assert processes(machine, SERVER) == []


def test_missing_image_is_reported_with_last_lines(machine: Machine, undo: Callable[..., object]) -> None:
    undo(machine.wait_until_served, "default")
    undo(machine.systemctl, "restart", "engine-provisioner")
    undo(machine.container.write, POOLS_FILE, CONTAINER_POOL)
    machine.container.write(POOLS_FILE, CONTAINER_POOL + MISSING_POOL)
    machine.systemctl("restart", "engine-provisioner")
    until(lambda: machine.pool("missing").get("state") == "failed", "the pool to fail", 60, machine.recent)
    error = machine.pool("missing")["last_error"]
    assert "cannot pull the image localhost/no-such-image:latest" in error
    assert "Correct the keys image and tag" in error


def write_toy(machine: Machine, *, more: str = "") -> None:
    """Write a repository, owned by root, with a source tree."""
    with tempfile.TemporaryDirectory() as directory:
        tree = toy_engine.write_project(Path(directory) / "toy", more=more)
        toy_engine.commit(tree)
        machine.container.check("rm", "-rf", TOY)
        subprocess.run(["cp", "-r", tree, machine.container.path(TOY)], check=True)


def test_source_is_built_in_the_daemons_sandbox(machine: Machine, undo: Callable[..., object]) -> None:
    undo(machine.wait_until_served, "default")
    undo(machine.systemctl, "restart", "engine-provisioner")
    undo(machine.container.write, POOLS_FILE, CONTAINER_POOL)
    gate = "/srv/gate"
    machine.container.check("sh", "-c", f"rm -rf {gate}; mkdir {gate}; chmod 777 {gate}")
    script = f": >/tmp/reached; while ! test -e {gate}/open; do sleep 0.05; done; echo >$1\n"
    machine.container.write(f"{gate}/gate.sh", script)
    write_toy(machine, more=toy_engine.GATE.format(script=f"{gate}/gate.sh"))
    machine.container.write(POOLS_FILE, CONTAINER_POOL + SOURCE_POOL)
    machine.systemctl("restart", "engine-provisioner")
    [builder] = until(lambda: processes(machine, "^sh /srv/gate/gate.s[h]"), "the build", 60, machine.recent)[-1:]
    daemon = machine.show("engine-provisioner", "MainPID")
    niceness = machine.container.check("ps", "-o", "ni=", "-p", f"{daemon},{builder}").split()
    assert int(niceness[1]) == min(int(niceness[0]) + 10, LOWEST_PRIORITY)
    machine.systemctl("kill", "--signal=KILL", "--kill-whom=main", "engine-provisioner")
    until(lambda: builder not in processes(machine, "gate.s[h]"), "the build to end with the daemon", 20)
    machine.container.write(f"{gate}/open", "")
    machine.wait_until_served("built")
    assert machine.pool("built")["engine_version"] == "1 (toy)"
    plan = machine.container.check("engine-provisioner", "plan")  # with the service's environment: on the CPU
    assert "pool built: llamacpp, mode source, can start" in plan
    assert "pool default: llamacpp, mode container, can start" in plan
