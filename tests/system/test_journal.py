"""What the journal says about events and requests, and what it must not: the token of a crashed daemon."""

import json
import re
from collections.abc import Callable

import pytest

from llama_orch.telemetry.events.catalog import CATALOG
from tests.engines.llama_server import Archive
from tests.system.conftest import TINY
from tests.system.lab.client import outcome
from tests.system.lab.machine import DAEMONS, PROVISIONER_ENV, TARGET, Machine, Pool, changed_from
from tests.system.lab.waiting import until

RELEASE = "bookworm"

TOKEN = "planted-0123456789abcdef-token"
REQUEST = "the-request-that-is-followed"
QUEEN_ENV, NODE_ENV = "/etc/llama-orch/queen-rbee.env", "/etc/llama-orch/pool-managerd.env"
QUEEN = "http://127.0.0.1:8080"
VARIABLES = {
    QUEEN_ENV: {"ORCHESTRATORD_CLOUD_PROFILE": "true", "ORCHESTRATORD_BIND_ADDR": "127.0.0.1:8080"},
    NODE_ENV: {"ORCHESTRATORD_URL": QUEEN, "POOL_MANAGERD_NODE_ID": "node-1"},
    PROVISIONER_ENV: {"HF_TOKEN": TOKEN},
}
LOAD = ("load_ordered", "load_passed_on", "provisioning_started", "engine_started")
"""In this order, but for the first: the queen logs it when pool-managerd has answered."""
STEPS = ("task_admitted", *LOAD[1:], "task_placed", "task_sent", "request_relayed", "task_ended")


@pytest.fixture(scope="module")
def node(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """A machine in CLOUD_PROFILE with a loaded pool and one that is loaded on demand, and tokens in the environment."""
    always, on_demand = Pool("always", TINY), Pool("on-demand", TINY, extra="preload = false")
    stocked.configure(llama_server_tar, always, on_demand)
    for file, variables in VARIABLES.items():
        for name, value in {**variables, "RUST_LOG": "debug", "LLORCH_API_TOKEN": TOKEN}.items():
            stocked.set_variable(file, name, value)
    stocked.systemctl("start", TARGET)
    machine = Machine(stocked.container, TOKEN)
    machine.wait_until_served(always.id)
    until(lambda: machine.pool(on_demand.id).get("state") == "unloaded", "the other pool", explain=machine.recent)
    return machine


def test_journalctl_x_explains_every_event(node: Machine) -> None:
    """Variables in the advice are replaced by fields, so that only the other lines are compared."""
    identifier = "catalog-of-events"
    entries = [
        f"MESSAGE_ID={event.message_id}\nMESSAGE={event.name}\nSYSLOG_IDENTIFIER={identifier}" for event in CATALOG
    ]
    script = "while IFS= read -r line; do printf '%b' \"$line\" | logger --journald; done"
    text = "".join(entry.replace("\n", "\\n") + "\\n\n" for entry in entries)
    node.container.check("sh", "-c", script, stdin=text)
    until(lambda: len(node.journal(f"--identifier={identifier}")) == len(CATALOG), "the entries")
    explained = node.container.check("journalctl", "-x", "--no-pager", f"--identifier={identifier}")
    missing = {
        event.name
        for event in CATALOG
        if any(line not in explained for line in event.advice.splitlines() if "@" not in line)
    }
    assert missing == set()
    listed = node.container.check("journalctl", "--list-catalog", *(event.message_id for event in CATALOG))
    assert len(listed.splitlines()) == len(CATALOG)


def submit(machine: Machine, pool_id: str, correlation_id: str) -> str:
    """Submit a task for a pool with this correlation id; return its id."""
    task = {"prompt": "the river", "max_tokens": 4, "placement": {"mode": "pin", "pin_pool_id": pool_id}}
    headers = (
        f"X-Correlation-Id: {correlation_id}",
        f"Authorization: Bearer {TOKEN}",
        "Content-Type: application/json",
    )
    words = [word for header in headers for word in ("--header", header)]
    said = machine.container.check("curl", "--silent", *words, "--data", json.dumps(task), f"{QUEEN}/v2/tasks")
    return str(json.loads(said)["task_id"])


def test_one_id_follows_a_request_through_all_daemons(node: Machine) -> None:
    assert outcome(node.queen, submit(node, "on-demand", REQUEST)).last.name == "end"
    match = f"CORRELATION_ID={REQUEST}"
    until(lambda: "task_ended" in str(node.journal(match)), "the last entry", explain=node.recent)
    entries = node.journal(match)
    events = [str(entry.get("LLORCH_EVENT")) for entry in entries]
    assert [name for name in events if name in STEPS] == list(STEPS)
    assert events.count("load_ordered") == 1
    assert events.index("task_admitted") < events.index("load_ordered") < events.index("task_placed")
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {f"{daemon}.service" for daemon in DAEMONS}


def cores(machine: Machine, directory: str) -> list[str]:
    return machine.container.check("find", directory, "-name", "core*", "-size", "+100k").splitlines()


def crash(machine: Machine, unit: str) -> None:
    machine.systemctl("kill", "--kill-whom=main", "--signal=SEGV", unit)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_crashed_daemon_leaves_no_core_and_no_token(node: Machine, undo: Callable[..., object], daemon: str) -> None:
    """Even where a drop-in allows cores, in a directory where a program without this protection leaves one."""
    unit, state = f"{daemon}.service", f"/var/lib/{daemon}"
    undo(node.wait_until_served, "always")
    undo(node.systemctl, "restart", unit)
    undo(node.systemctl, "revert", unit)
    node.drop_in(unit, f"[Service]\nLimitCORE=infinity\nWorkingDirectory={state}\n")
    node.systemctl("restart", unit)
    unprotected = ("--unit=unprotected", f"--uid={daemon}", "-pLimitCORE=infinity", f"-pWorkingDirectory={state}")
    node.container.check("systemd-run", "--quiet", *unprotected, "sleep", "infinity")
    crash(node, "unprotected.service")
    until(lambda: node.show("unprotected.service", "ActiveState") != "active", "the crash", explain=node.recent)
    node.container.run("systemctl", "reset-failed", "unprotected.service")
    if node.container.path("/proc/sys/kernel/core_pattern").read_text().startswith("core"):
        assert cores(node, state), "this machine saves cores"
        node.container.check("sh", "-c", f"rm {state}/core*")

    pid = node.show(unit, "MainPID")
    assert TOKEN.encode() in node.container.path(f"/proc/{pid}/environ").read_bytes()
    crash(node, unit)
    until(changed_from(pid, lambda: node.show(unit, "MainPID")), f"another {daemon}", explain=node.recent)
    assert "Fatal Python error: Segmentation fault" in node.messages(f"_PID={pid}"), "its stacks are logged"
    assert cores(node, state) == []
    everything = node.container.check("journalctl", "--output=export", "--no-pager", "--all")
    assert TOKEN not in everything
    assert re.search(rf"{daemon}.*status=11/SEGV", node.messages(f"UNIT={unit}"))


def test_engine_has_no_token_of_the_daemons(node: Machine) -> None:
    pid = node.show("llama-engine@always.service", "MainPID")
    environment = node.container.path(f"/proc/{pid}/environ").read_bytes()
    assert b"HOME=" in environment
    assert TOKEN.encode() not in environment
    assert node.show("llama-engine@always.service", "LimitCORE") == "0"
