"""Serving tokens of a real engine on a booted machine, during restarts, crashes, kills and losses of state."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from llama_orch.telemetry.events import provisioning as events
from tests.system.conftest import TINY
from tests.system.lab.client import complete
from tests.system.lab.load import under_load
from tests.system.lab.machine import DAEMONS, Machine, changed_from
from tests.system.lab.network import socket_in_network_of
from tests.system.lab.waiting import until

RELEASE = "trixie"

ENGINE = "llama-engine@default.service"
QUEEN = "queen-rbee.service"
MANAGER = "pool-managerd.service"
SPOOL = "/run/llama-orch/engines"
RESTARTS = 5


def on(pool_id: str) -> dict[str, object]:
    """Return the fields of a task that is pinned to this pool."""
    return {"placement": {"mode": "pin", "pin_pool_id": pool_id}}


def main_pid(machine: Machine, unit: str) -> str:
    return machine.show(unit, "MainPID")


def health(machine: Machine) -> Callable[[], str | None]:
    """Return a request for `under_load` that checks the health of queen-rbee."""

    def ask() -> str | None:
        answer = machine.queen.get("/health")
        return None if answer.status == 200 else f"status {answer.status}"

    return ask


def test_client_gets_tokens_of_engine(serving: Machine) -> None:
    outcome = complete(serving.queen, max_tokens=16, **on("default"))
    assert outcome.last.name == "end", outcome.last
    assert outcome.tokens == outcome.last.data["tokens_out"] == 16
    assert outcome.text.strip()
    again = complete(serving.queen, max_tokens=16, **on("default"))
    assert again.text == outcome.text, "the same seed gives the same text"


def test_orchctl_submits_task_and_prints_tokens(serving: Machine) -> None:
    expected = complete(serving.queen, prompt="hello world", max_tokens=16, **on("default")).text
    words = ("orchctl", "submit", "--pool", "default", "--seed", "1", "--max-tokens", "16", "hello world")
    assert expected.strip() in serving.container.check(*words)


def test_engine_unit_has_own_user_slice_and_journal(serving: Machine) -> None:
    assert serving.show(ENGINE, "User") == "llama-engine"
    assert serving.show(ENGINE, "Slice") == "llama-engines.slice"
    assert "listening" in serving.messages(f"--unit={ENGINE}", "POOL_ID=default")


def test_connection_starts_stopped_queen(serving: Machine) -> None:
    serving.systemctl("stop", QUEEN)
    assert serving.show(QUEEN, "ActiveState") == "inactive"
    assert serving.queen.get("/health").status == 200
    assert serving.show(QUEEN, "ActiveState") == "active"
    serving.wait_until_served("default")
    assert complete(serving.queen, **on("default")).last.name == "end"


def test_restarts_of_queen_refuse_no_connection(serving: Machine) -> None:
    with under_load(health(serving)) as load:
        pids = {main_pid(serving, QUEEN)}
        for _restart in range(RESTARTS):
            serving.systemctl("restart", QUEEN)
            pids.add(main_pid(serving, QUEEN))
            load.wait_for_more()
    assert load.failures == {}
    assert len(pids) == RESTARTS + 1


def test_running_stream_ends_normally_during_restart(serving: Machine) -> None:
    serving.wait_until_served("slow")
    answer = serving.queen.post("/v2/tasks", {"prompt": "the river", "max_tokens": 100, "seed": 1, **on("slow")})
    stream = serving.queen.events(answer.json["streams"]["sse"])
    assert next(event for event in stream if event.name == "token")
    serving.systemctl("restart", QUEEN)
    *_tokens, last = stream
    assert last.name == "end", last
    assert last.data["tokens_out"] == 100


def test_watchdog_restarts_hung_dispatcher(serving: Machine, undo: Callable[..., object]) -> None:
    program = Path(__file__).with_name("wedged_queen.py")
    serving.container.write("/opt/wedged_queen.py", program.read_bytes())
    start = "/usr/lib/llama-orch/bin/python3 -I -X faulthandler /opt/wedged_queen.py"
    restart_with_drop_in(serving, undo, f"[Service]\nExecStart=\nExecStart={start}\nWatchdogSec=3\nRestartSec=100ms\n")
    before = main_pid(serving, QUEEN)

    serving.systemctl("kill", "--kill-whom=main", "--signal=USR2", QUEEN)
    until(lambda: "dispatcher is wedged" in serving.messages(f"_PID={before}"), "the dispatcher to hang")
    task = serving.queen.post("/v2/tasks", {"prompt": "the river", "max_tokens": 4}).json
    assert state(serving, task["task_id"]) == "queued", "the rest of the daemon continues"

    until(changed_from(before, lambda: main_pid(serving, QUEEN)), "a restart of queen-rbee", 30)
    assert "watchdog: no progress in dispatcher" in serving.messages(f"_PID={before}")
    serving.wait_until_served("default")
    assert complete(serving.queen, **on("default")).last.name == "end"
    until(lambda: state(serving, task["task_id"]) == "done", "the task that the hung queen-rbee had accepted", 30)


def state(machine: Machine, task_id: str) -> str:
    return str(machine.queen.get(f"/v2/tasks/{task_id}").json.get("state"))


def test_accepted_tasks_survive_kill_of_queen(serving: Machine) -> None:
    serving.wait_until_served("slow")
    words = {"prompt": "the river of no return", **on("slow")}
    tasks = [serving.queen.post("/v2/tasks", {**words, "max_tokens": 20 + n}).json["task_id"] for n in range(6)]
    before = main_pid(serving, QUEEN)
    serving.systemctl("kill", "--kill-whom=main", "--signal=KILL", QUEEN)
    until(changed_from(before, lambda: main_pid(serving, QUEEN)), "a restart of queen-rbee", 30)
    until(lambda: all(state(serving, task_id) == "done" for task_id in tasks), "the tasks of the killed queen", 60)
    assert "queued again, 0 ended" in serving.messages(f"_PID={main_pid(serving, QUEEN)}")
    serving.systemctl("stop", QUEEN)
    found = serving.container.run("grep", "-r", "-l", "river of no return", "/var/lib/queen-rbee")
    assert (found.status, found.stdout) == (1, ""), "prompts are deleted when their tasks end"


def test_slow_client_does_not_turn_stop_into_crash(serving: Machine, undo: Callable[..., object]) -> None:
    restart_with_drop_in(serving, undo, "[Service]\nWatchdogSec=2\n")
    before = main_pid(serving, QUEEN)
    with socket_in_network_of(serving.container.init) as slow_client:
        slow_client.connect(("127.0.0.1", serving.queen.port))
        slow_client.sendall(b"POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf of i")
        # The same loop answers, so it has received the partial request.
        assert serving.queen.get("/health").status == 200
        serving.systemctl("restart", "--no-block", QUEEN)
        until(lambda: serving.show(QUEEN, "ActiveState") == "deactivating", "the stop to begin")
        for _ping in range(3):
            last = serving.show(QUEEN, "WatchdogTimestampMonotonic")
            pinged = changed_from(last, lambda: serving.show(QUEEN, "WatchdogTimestampMonotonic"))
            until(pinged, "a ping of the watchdog while the daemon drains", 5, serving.recent)
            assert main_pid(serving, QUEEN) == before
    until(changed_from(before, lambda: main_pid(serving, QUEEN)), "the next queen-rbee")
    assert serving.show(QUEEN, "NRestarts") == "0"


def restart_with_drop_in(machine: Machine, undo: Callable[..., object], drop_in: str) -> None:
    """Restart queen-rbee with a drop-in, which is removed when the test ends."""
    undo(machine.systemctl, "restart", QUEEN)
    undo(machine.systemctl, "revert", QUEEN)
    machine.drop_in(QUEEN, drop_in)
    machine.systemctl("restart", QUEEN)
    machine.wait_until_served("default")


def test_handoff_file_starts_stopped_pool_manager(serving: Machine, undo: Callable[..., object]) -> None:
    undo(serving.systemctl, "stop", "foreign-engine.service")
    handoff = {"schema": 1, "pool_id": "dropped", "engine_version": "0", "url": foreign_engine(serving)}
    # everything else that starts pool-managerd
    others = (
        QUEEN,
        *(f"queen-rbee{kind}" for kind in (".socket", "-local.socket", "-metrics.socket", "-handoff.path")),
    )
    undo(serving.systemctl, "start", *others)

    def stopped() -> bool:
        """Stop pool-managerd. An earlier change in the handoff directory may start it once more."""
        serving.systemctl("stop", *others, "pool-managerd-handoff.service", MANAGER)
        return serving.show(MANAGER, "ActiveState") == "inactive"

    until(stopped, "pool-managerd to stay stopped")

    serving.container.write(f"{SPOOL}/.dropped", json.dumps(handoff), mode=0o640)
    os.rename(serving.container.path(f"{SPOOL}/.dropped"), serving.container.path(f"{SPOOL}/dropped-r0.json"))
    until(lambda: serving.show(MANAGER, "ActiveState") == "active", "pool-managerd to start")
    until(lambda: serving.pool("dropped").get("ready"), "the pool of the file to be ready")
    assert serving.pool("default")["ready"], "the earlier pools are still known"


def foreign_engine(machine: Machine) -> str:
    """Start an engine outside llama-orch and return its URL."""
    executable = machine.container.check("sh", "-c", "ls /var/cache/llama-orch/engines/*/*/bin/llama-server").strip()
    words = (executable, "-m", TINY, "--host", "127.0.0.1", "--port", "19000", "-c", "512", "-np", "1", "--slots")
    machine.container.check("systemd-run", "--unit=foreign-engine", *words)
    url = "http://127.0.0.1:19000"
    until(
        lambda: machine.container.run("curl", "--fail", "--silent", f"{url}/health").status == 0, "the foreign engine"
    )
    return url


def test_engines_survive_restart_of_all_daemons(serving: Machine) -> None:
    engine = main_pid(serving, ENGINE)
    daemons = [main_pid(serving, f"{daemon}.service") for daemon in DAEMONS]
    serving.systemctl("restart", *(f"{daemon}.service" for daemon in DAEMONS))
    assert not {main_pid(serving, f"{daemon}.service") for daemon in DAEMONS} & {*daemons, "0"}
    serving.wait_until_served("default")
    assert complete(serving.queen, **on("default")).last.name == "end"

    provisioner = main_pid(serving, "engine-provisioner.service")
    adopted = (
        "--lines=all",
        f"_PID={provisioner}",
        f"MESSAGE_ID={events.ENGINE_ADOPTED.message_id}",
        "POOL_ID=default",
    )
    until(lambda: serving.journal(*adopted), "the engine to be adopted")
    assert main_pid(serving, ENGINE) == engine


def test_killed_engine_is_restarted_and_serves(serving: Machine) -> None:
    before = main_pid(serving, ENGINE)
    serving.systemctl("kill", "--signal=KILL", ENGINE)
    until(changed_from(before, lambda: main_pid(serving, ENGINE)), "a new engine", 60)
    until(
        lambda: complete(serving.queen, **on("default")).last.name == "end",
        "the pool to serve again",
        60,
    )


def assert_serving(machine: Machine) -> None:
    machine.wait_until_served("default")
    assert complete(machine.queen, placement={"mode": "pin", "pin_pool_id": "default"}).last.name == "end"


def test_pools_recover_after_all_processes_are_killed(serving: Machine) -> None:
    before = main_pid(serving, ENGINE)
    serving.systemctl("kill", "--signal=KILL", *DAEMONS, "llama-engine@*.service")
    assert_serving(serving)
    assert main_pid(serving, ENGINE) != before
    assert serving.systemctl("--failed", "--no-legend").strip() == ""


def test_running_engines_are_restored_after_loss_of_state(serving: Machine) -> None:
    engine = main_pid(serving, ENGINE)
    for stopped, lost in (
        ("pool-managerd", "/var/lib/pool-managerd/*"),
        ("pool-managerd", "/var/lib/pool-managerd/* /run/llama-orch/engines/*"),
        ("pool-managerd engine-provisioner", "/var/lib/pool-managerd/* /run/llama-orch/engines/*"),
        ("queen-rbee pool-managerd", "/var/lib/queen-rbee/* /var/lib/pool-managerd/*"),
    ):
        # Remove only the contents: a client that connects meanwhile starts the daemon, which needs the directory.
        commands = f"systemctl stop {stopped}; rm -rf {lost}; systemctl start {stopped}"
        serving.container.check("sh", "-c", commands)
        assert_serving(serving)
    assert main_pid(serving, ENGINE) == engine
