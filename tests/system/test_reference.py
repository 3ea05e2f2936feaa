"""The configuration reference on booted machines, letter by letter: its set-ups, its troubleshooting, its permissions.

Installed, then one machine, then a cluster on that machine, in this order: one set-up takes the place of the other.
"""

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256

import pytest

from tests.engines.llama_server import Archive
from tests.system.conftest import TINY
from tests.system.lab.client import QUEEN, Client, complete
from tests.system.lab.machine import DAEMONS, TARGET, Machine, Pool
from tests.system.lab.waiting import until
from tests.unit.reference.parsing import DOCUMENT, set_ups
from tools.generating.documents import apply_commands

HOME, CONTROL_PLANE, NODE = "HOME_PROFILE", "Control Plane Node", "GPU Worker Node 1"
NO_GPU = {"ENGINE_PROVISIONER_GPU_MASK": "cpu"}
"""The one line that these machines need besides: the reference's examples use GPU 0."""
POOL = Pool("default", TINY)
HERE = "10.77.1.1"
"""The address of the machine's own, under the names that the examples have for others."""
QUEEN_ENV, NODE_ENV = "/etc/llama-orch/queen-rbee.env", "/etc/llama-orch/pool-managerd.env"
REFERENCE = DOCUMENT.read_text()
SPOOLS = ("/run/llama-orch/engines", "/var/lib/llama-orch/engines")
CACHES = ("/var/cache/llama-orch", "/var/cache/llama-engine")
WRONG, NEW = "not-the-token-of-the-queen", "the-token-after-a-restart"


def given(*titles: str) -> dict[str, Mapping[str, str]]:
    """What the complete examples with these words in their titles set, by daemon."""
    return {each.daemon: each.values for each in set_ups() if any(title in each.title for title in titles)}


def set_up(machine: Machine, archive: Archive, *titles: str) -> None:
    """Copy examples of the reference into the environment files, and have them in force as those say."""
    for daemon, values in given(*titles).items():
        lines = [f"{name}={value}\n" for name, value in values.items()]
        machine.container.write(f"/etc/llama-orch/{daemon}.env", "".join(lines), mode=0o640)
    machine.configure(archive, POOL)
    for daemon in DAEMONS:
        restart(machine, daemon)


def restart(machine: Machine, daemon: str) -> None:
    """As its environment file says."""
    machine.container.check("sh", "-c", " && ".join(apply_commands(daemon)))


def checked(machine: Machine, daemon: str) -> dict[str, str]:
    """What `--check-config` says is in force, where the daemon's environment file is what counts."""
    command = f"set -a; . /etc/llama-orch/{daemon}.env; {daemon} --check-config"
    shown = machine.container.check("sh", "-c", command)
    return dict(re.findall(r"^(\w+)=(.*)  # ", shown, re.MULTILINE))


def assert_in_force(machine: Machine, *titles: str) -> None:
    """`--check-config` must show each value of the examples."""
    for daemon, values in given(*titles).items():
        in_force = checked(machine, daemon)
        wanted = {**values, **(NO_GPU if daemon == "engine-provisioner" else {})}
        if token := wanted.get("LLORCH_API_TOKEN"):
            wanted["LLORCH_API_TOKEN"] = shown_as(token)
        assert wanted.items() <= in_force.items(), daemon


def shown_as(token: str | None) -> str:
    """How logs and `--check-config` show it."""
    return f"token_fp6={sha256(str(token).encode()).hexdigest()[:6]}"


def follow(machine: Machine, command: str) -> list[str]:
    """The lines that a command of the reference prints; none where it finds nothing."""
    assert command in REFERENCE, "not a command of the reference"
    done = machine.container.run("sh", "-c", command)
    assert done.status in (0, 1), done.stderr
    return done.stdout.splitlines()


def wait_for(machine: Machine, words: str, command: str) -> None:
    """Return when a command of the reference prints a line with `words`. Raises TimeoutError."""
    until(lambda: any(words in line for line in follow(machine, command)), f"{command}: {words}")


@pytest.fixture(scope="module")
def home(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """The machine as the reference's HOME_PROFILE example has it."""
    stocked.systemctl("start", TARGET)
    set_up(stocked, llama_server_tar, HOME)
    stocked.wait_until_served(POOL.id)
    return stocked


@pytest.fixture(scope="module")
def cloud(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """The machine as a control plane and the first node at once, as the CLOUD_PROFILE example has them."""
    stocked.container.check("ip", "address", "add", f"{HERE}/32", "dev", "lo")
    stocked.container.write("/etc/hosts", f"127.0.0.1 localhost\n{HERE} control-plane queen-rbee tempo\n")
    stocked.systemctl("start", TARGET)
    set_up(stocked, llama_server_tar, CONTROL_PLANE, NODE)
    served = Machine(stocked.container, given(CONTROL_PLANE)["queen-rbee"]["LLORCH_API_TOKEN"])
    served.wait_until_served(POOL.id)
    return served


@pytest.fixture
def as_before(undo: Callable[..., object]) -> Callable[[Machine, str], None]:
    """Call it with a daemon whose environment file is to be changed: both are again as they were when the test ends."""

    def remember(machine: Machine, daemon: str) -> None:
        path = machine.container.path(f"/etc/llama-orch/{daemon}.env")
        undo(restart, machine, daemon)
        undo(path.write_text, path.read_text())

    return remember


@pytest.mark.parametrize("spool", SPOOLS)
def test_a_handoff_directory_is_for_the_daemons_and_for_nobody_else(installed: Machine, spool: str) -> None:
    for user in ("pool-managerd", "engine-provisioner"):
        installed.container.check("runuser", "-u", user, "--", "touch", f"{spool}/.trial")
        installed.container.check("runuser", "-u", user, "--", "rm", f"{spool}/.trial")
    for user in ("nobody", "llama-engine"):
        assert installed.container.run("runuser", "-u", user, "--", "ls", spool).status != 0, user
    assert installed.container.check("stat", "-c", "%a %U:%G", spool) == "2770 engine-provisioner:llama-orch\n"


def test_one_machine_is_set_up_as_written_and_runs_a_task(home: Machine) -> None:
    assert_in_force(home, HOME)
    outcome = complete(home.queen, max_tokens=8)
    assert (outcome.last.name, outcome.tokens) == ("end", 8)
    reports = home.container.check("ls", "/run/llama-orch/engines/status")
    assert reports == f"{POOL.id}.json\n", "the relative directory of the example is the packaged one"


def test_cache_directories_are_closed_to_other_users(home: Machine) -> None:
    modes = home.container.check("stat", "-c", "%a %U", *CACHES).splitlines()
    assert modes == ["750 engine-provisioner", "700 llama-engine"]
    for cache in CACHES:
        assert home.container.run("runuser", "-u", "nobody", "--", "ls", cache).status != 0, cache


def test_a_changed_variable_counts_after_a_restart_and_not_before(
    home: Machine, as_before: Callable[[Machine, str], None]
) -> None:
    as_before(home, "queen-rbee")
    home.set_variable(QUEEN_ENV, "LLORCH_API_TOKEN", NEW)
    home.systemctl("daemon-reload")
    assert home.queen.get("/v2/pools").status == 200
    home.systemctl("restart", "queen-rbee.service")
    assert home.queen.get("/v2/pools").status == 401


def test_a_changed_address_counts_once_the_command_has_run_that_a_restart_logs(
    home: Machine, as_before: Callable[[Machine, str], None]
) -> None:
    as_before(home, "queen-rbee")
    home.set_variable(QUEEN_ENV, "ORCHD_ADDR", "127.0.0.1:8088")
    home.systemctl("restart", "queen-rbee.service")
    said = home.messages("--unit=queen-rbee.service", "LLORCH_EVENT=socket_disagrees")
    [command] = re.findall(r"systemctl daemon-reload && .*\.service", said)
    home.container.check("sh", "-c", command)
    assert Client(home.container, 8088).get("/health").status == 200
    with pytest.raises(ConnectionRefusedError):
        home.queen.get("/health")


def test_a_cluster_is_set_up_as_written_and_runs_a_task_on_its_node(cloud: Machine) -> None:
    assert_in_force(cloud, CONTROL_PLANE, NODE)
    [node] = cloud.queen.get("/v2/nodes").json["nodes"]
    assert (node["node_id"], node["status"], node["address"]) == ("gpu-node-1", "online", f"http://{HERE}:9200")
    outcome = complete(cloud.queen, max_tokens=8)
    assert (outcome.last.name, outcome.tokens) == ("end", 8)
    assert cloud.container.check("ls", "/var/lib/llama-orch/engines/status") == f"{POOL.id}.json\n"


def test_the_check_of_connectivity_gets_an_answer_from_elsewhere_without_a_token(cloud: Machine) -> None:
    answer = json.loads("\n".join(follow(cloud, f"curl http://queen-rbee:{QUEEN}/v2/meta/capabilities")))
    assert [pool["pool_id"] for pool in answer["pools"]] == [POOL.id]


def test_the_diagnosis_of_a_node_that_is_missing_shows_its_registration_on_both_sides(cloud: Machine) -> None:
    wait_for(cloud, "gpu-node-1", "journalctl -u pool-managerd | grep registration")
    wait_for(cloud, "gpu-node-1", "journalctl -u queen-rbee | grep node_registration")


def test_the_token_of_both_sides_can_be_compared_by_echo_and_by_fingerprint(cloud: Machine) -> None:
    echo = "echo $LLORCH_API_TOKEN"
    assert echo in REFERENCE
    shown = [cloud.container.check("sh", "-c", f". {file}; {echo}").strip() for file in (QUEEN_ENV, NODE_ENV)]
    assert shown == [cloud.token, cloud.token]
    for daemon in ("queen-rbee", "pool-managerd"):
        assert f"need the token {shown_as(cloud.token)}" in cloud.messages(f"--unit={daemon}.service"), daemon


def test_the_diagnosis_of_a_refused_token_shows_which_one_it_was_and_never_a_token(
    cloud: Machine, as_before: Callable[[Machine, str], None]
) -> None:
    as_before(cloud, "pool-managerd")
    cloud.set_variable(NODE_ENV, "LLORCH_API_TOKEN", WRONG)
    restart(cloud, "pool-managerd")
    wait_for(cloud, shown_as(WRONG), "journalctl -u queen-rbee | grep token_fp6")
    wait_for(cloud, "refused", "journalctl -u pool-managerd | grep registration")
    assert shown_as(WRONG) in cloud.messages("--unit=pool-managerd.service"), "the other side's own"
    kept = cloud.container.check("journalctl", "--no-pager", "--output=export")
    assert [token for token in (cloud.token, WRONG) if str(token) in kept] == []


def test_cloud_profile_without_a_token_does_not_start_and_says_which_variable_is_missing(
    cloud: Machine, as_before: Callable[[Machine, str], None]
) -> None:
    as_before(cloud, "queen-rbee")
    cloud.set_variable(QUEEN_ENV, "LLORCH_API_TOKEN", "")
    assert cloud.container.run("systemctl", "restart", "queen-rbee.service").status != 0
    # a node that knocks has the socket start it again, a few times: meanwhile there is no status
    until(lambda: cloud.show("queen-rbee.service", "ExecMainStatus") == "78", "the status 78")
    assert "LLORCH_API_TOKEN: is not set" in cloud.messages(
        "--unit=queen-rbee.service", "LLORCH_EVENT=configuration_refused"
    )
