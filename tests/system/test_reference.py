"""The configuration reference on booted machines: its complete examples, troubleshooting and permissions.

The tests run in this order: after the installation, as one machine, as a cluster on that machine. Each example replaces
the previous one.
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

RELEASE = "trixie"

HOME, CONTROL_PLANE, NODE = "HOME_PROFILE", "Control Plane Node", "GPU Worker Node 1"
NO_GPU = {"ENGINE_PROVISIONER_GPU_MASK": "cpu"}
"""The only additional setting that these machines need, because the examples use GPU 0."""
POOL = Pool("default", TINY)
ADDITIONAL_ADDRESS = "10.77.1.1"
"""Additional address of the machine, for the host names that the examples use for other machines."""
QUEEN_ENV, NODE_ENV = "/etc/llama-orch/queen-rbee.env", "/etc/llama-orch/pool-managerd.env"
REFERENCE = DOCUMENT.read_text()
SPOOLS = ("/run/llama-orch/engines", "/var/lib/llama-orch/engines")
CACHES = ("/var/cache/llama-orch", "/var/cache/llama-engine")
WRONG, NEW = "not-the-token-of-the-queen", "the-token-after-a-restart"


def example_variables(*titles: str) -> dict[str, Mapping[str, str]]:
    """Return the variables of the complete examples with these words in their titles, by daemon."""
    return {each.daemon: each.values for each in set_ups() if any(title in each.title for title in titles)}


def apply_examples(machine: Machine, archive: Archive, *titles: str) -> None:
    """Copy examples of the reference to the environment files, and apply them as these files describe."""
    for daemon, values in example_variables(*titles).items():
        lines = [f"{name}={value}\n" for name, value in values.items()]
        machine.container.write(f"/etc/llama-orch/{daemon}.env", "".join(lines), mode=0o640)
    machine.configure(archive, POOL)
    for daemon in DAEMONS:
        restart(machine, daemon)


def restart(machine: Machine, daemon: str) -> None:
    """Restart a daemon with the commands in its environment file."""
    machine.restart_sockets(" && ".join(apply_commands(daemon)))


def effective_settings(machine: Machine, daemon: str) -> dict[str, str]:
    """Return the settings that `--check-config` shows, which reads the environment of the service."""
    shown = machine.container.check(daemon, "--check-config")
    return dict(re.findall(r"^(\w+)=(.*)  # ", shown, re.MULTILINE))


def assert_settings(machine: Machine, *titles: str) -> None:
    """Check that `--check-config` shows each value of the examples."""
    for daemon, values in example_variables(*titles).items():
        settings = effective_settings(machine, daemon)
        expected = {**values, **(NO_GPU if daemon == "engine-provisioner" else {})}
        if token := expected.get("LLORCH_API_TOKEN"):
            expected["LLORCH_API_TOKEN"] = fingerprint(token)
        assert expected.items() <= settings.items(), daemon


def fingerprint(token: str | None) -> str:
    """Return the fingerprint of a token as logs and `--check-config` show it."""
    return f"token_fp6={sha256(str(token).encode()).hexdigest()[:6]}"


def run_reference_command(machine: Machine, command: str) -> list[str]:
    """Run a command of the reference and return its output, which is empty if grep finds nothing."""
    assert command in REFERENCE, "not a command of the reference"
    done = machine.container.run("sh", "-c", command)
    assert done.status in (0, 1), done.stderr
    return done.stdout.splitlines()


def wait_for(machine: Machine, words: str, command: str) -> None:
    """Wait until a command of the reference prints a line with `words`. Raises TimeoutError."""
    until(lambda: any(words in line for line in run_reference_command(machine, command)), f"{command}: {words}")


@pytest.fixture(scope="module")
def home(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """The machine with the HOME_PROFILE example of the reference."""
    stocked.systemctl("start", TARGET)
    apply_examples(stocked, llama_server_tar, HOME)
    stocked.wait_until_served(POOL.id)
    return stocked


@pytest.fixture(scope="module")
def cloud(stocked: Machine, llama_server_tar: Archive) -> Machine:
    """The machine as control plane and first node, with the CLOUD_PROFILE example of the reference."""
    stocked.container.check("ip", "address", "add", f"{ADDITIONAL_ADDRESS}/32", "dev", "lo")
    stocked.container.write("/etc/hosts", f"127.0.0.1 localhost\n{ADDITIONAL_ADDRESS} control-plane queen-rbee tempo\n")
    stocked.systemctl("start", TARGET)
    apply_examples(stocked, llama_server_tar, CONTROL_PLANE, NODE)
    served = Machine(stocked.container, example_variables(CONTROL_PLANE)["queen-rbee"]["LLORCH_API_TOKEN"])
    served.wait_until_served(POOL.id)
    return served


@pytest.fixture
def restore_later(undo: Callable[..., object]) -> Callable[[Machine, str], None]:
    """Register a daemon whose environment file the test changes. Both are restored when the test ends."""

    def remember(machine: Machine, daemon: str) -> None:
        path = machine.container.path(f"/etc/llama-orch/{daemon}.env")
        undo(restart, machine, daemon)
        undo(path.write_text, path.read_text())

    return remember


@pytest.mark.parametrize("spool", SPOOLS)
def test_handoff_directory_is_accessible_to_daemons_only(stocked: Machine, spool: str) -> None:
    for user in ("pool-managerd", "engine-provisioner"):
        stocked.container.check("runuser", "-u", user, "--", "touch", f"{spool}/.trial")
        stocked.container.check("runuser", "-u", user, "--", "rm", f"{spool}/.trial")
    for user in ("nobody", "llama-engine"):
        assert stocked.container.run("runuser", "-u", user, "--", "ls", spool).status != 0, user
    assert stocked.container.check("stat", "-c", "%a %U:%G", spool) == "2770 engine-provisioner:llama-orch\n"


def test_home_profile_example_runs_a_task(home: Machine) -> None:
    assert_settings(home, HOME)
    outcome = complete(home.queen, max_tokens=8)
    assert (outcome.last.name, outcome.tokens) == ("end", 8)
    reports = home.container.check("ls", "/run/llama-orch/engines/status")
    assert reports == f"{POOL.id}.json\n", "the relative directory of the example is the packaged directory"


def test_cache_directories_are_closed_to_other_users(home: Machine) -> None:
    modes = home.container.check("stat", "-c", "%a %U", *CACHES).splitlines()
    assert modes == ["750 engine-provisioner", "700 llama-engine"]
    for cache in CACHES:
        assert home.container.run("runuser", "-u", "nobody", "--", "ls", cache).status != 0, cache


def test_changed_variable_takes_effect_after_restart(
    home: Machine, restore_later: Callable[[Machine, str], None]
) -> None:
    restore_later(home, "queen-rbee")
    home.set_variable(QUEEN_ENV, "LLORCH_API_TOKEN", NEW)
    home.systemctl("daemon-reload")
    assert home.queen.get("/v2/pools").status == 200
    home.systemctl("restart", "queen-rbee.service")
    assert home.queen.get("/v2/pools").status == 401


def test_changed_address_takes_effect_after_logged_command(
    home: Machine, restore_later: Callable[[Machine, str], None]
) -> None:
    restore_later(home, "queen-rbee")
    home.set_variable(QUEEN_ENV, "ORCHD_ADDR", "127.0.0.1:8088")
    home.systemctl("restart", "queen-rbee.service")
    messages = home.messages("--unit=queen-rbee.service", "LLORCH_EVENT=socket_disagrees")
    [command] = re.findall(r"systemctl daemon-reload && .*\.service", messages)
    home.container.check("sh", "-c", command)
    assert Client(home.container, 8088).get("/health").status == 200
    with pytest.raises(ConnectionRefusedError):
        home.queen.get("/health")


def test_cloud_profile_example_runs_a_task_on_its_node(cloud: Machine) -> None:
    assert_settings(cloud, CONTROL_PLANE, NODE)
    [node] = cloud.queen.get("/v2/nodes").json["nodes"]
    assert (node["node_id"], node["status"], node["address"]) == (
        "gpu-node-1",
        "online",
        f"http://{ADDITIONAL_ADDRESS}:9200",
    )
    outcome = complete(cloud.queen, max_tokens=8)
    assert (outcome.last.name, outcome.tokens) == ("end", 8)
    assert cloud.container.check("ls", "/var/lib/llama-orch/engines/status") == f"{POOL.id}.json\n"


def test_connectivity_check_needs_no_token(cloud: Machine) -> None:
    answer = json.loads("\n".join(run_reference_command(cloud, f"curl http://queen-rbee:{QUEEN}/v2/meta/capabilities")))
    assert [pool["pool_id"] for pool in answer["pools"]] == [POOL.id]


def test_missing_node_diagnosis_shows_registration_in_both_logs(cloud: Machine) -> None:
    wait_for(cloud, "gpu-node-1", "journalctl -u pool-managerd | grep registration")
    wait_for(cloud, "gpu-node-1", "journalctl -u queen-rbee | grep node_registration")


def test_tokens_can_be_compared_by_echo_and_fingerprint(cloud: Machine) -> None:
    echo = "echo $LLORCH_API_TOKEN"
    assert echo in REFERENCE
    shown = [cloud.container.check("sh", "-c", f". {file}; {echo}").strip() for file in (QUEEN_ENV, NODE_ENV)]
    assert shown == [cloud.token, cloud.token]
    for daemon in ("queen-rbee", "pool-managerd"):
        assert f"need the token {fingerprint(cloud.token)}" in cloud.messages(f"--unit={daemon}.service"), daemon


def test_refused_token_is_logged_by_fingerprint_only(
    cloud: Machine, restore_later: Callable[[Machine, str], None]
) -> None:
    restore_later(cloud, "pool-managerd")
    cloud.set_variable(NODE_ENV, "LLORCH_API_TOKEN", WRONG)
    restart(cloud, "pool-managerd")
    wait_for(cloud, fingerprint(WRONG), "journalctl -u queen-rbee | grep token_fp6")
    wait_for(cloud, "refused", "journalctl -u pool-managerd | grep registration")
    assert fingerprint(WRONG) in cloud.messages("--unit=pool-managerd.service"), "the other side logs it too"
    journal = cloud.container.check("journalctl", "--no-pager", "--output=export")
    assert [token for token in (cloud.token, WRONG) if str(token) in journal] == []


def test_cloud_profile_without_token_does_not_start(
    cloud: Machine, restore_later: Callable[[Machine, str], None]
) -> None:
    restore_later(cloud, "queen-rbee")
    cloud.set_variable(QUEEN_ENV, "LLORCH_API_TOKEN", "")
    assert cloud.container.run("systemctl", "restart", "queen-rbee.service").status != 0
    # a node that connects makes the socket start the daemon again, so ExecMainStatus is 78 only for a moment
    until(lambda: "status=78/CONFIG" in cloud.messages("--unit=queen-rbee.service", "--since=-1min"), "the status 78")
    assert "LLORCH_API_TOKEN: is not set" in cloud.messages(
        "--unit=queen-rbee.service", "LLORCH_EVENT=configuration_refused"
    )
