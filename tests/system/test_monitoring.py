"""The shipped rules and dashboards with a real Prometheus, which scrapes a machine while its parts fail."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.engines.fixtures import skip_or_fail
from tests.engines.llama_server import Archive
from tests.gpus.imitation import NAME, ImitatedDriver, ImitatedGpu, library
from tests.system.conftest import POOLS, serve_pools
from tests.system.lab.client import Client, complete, submit
from tests.system.lab.machine import PROVISIONER_ENV, TARGET, Machine, Pool
from tests.system.lab.waiting import until

RELEASE = "trixie"

MONITORING = Path(__file__).resolve().parents[2] / "packaging/monitoring"
PORT = 9999
SPANS = {"1m": "2s", "2m": "8s", "5m": "10s", "10m": "10s", "15m": "120s", "1h": "60s"}
"""The spans of the rules, and shorter ones. Their true lengths are tested in tests/monitoring/rules.test.yml."""
PENDING = {"for: 2m": "for: 3s"}
"""Shorter than the span of the rates, so that a single failure is enough."""
WITHIN_S = 60.0
NOT_ON_THIS_MACHINE = ("orchd_node_heartbeats", "pool_energy_joules", "orchd_circuit")
"""A single machine has no nodes that send heartbeats, the engines here use no GPU, and no circuit is open."""
MANAGER_DROP_IN = "[Service]\nEnvironment=IMITATION_NVML=/srv/hardware POOL_MANAGERD_GPU_READ_INTERVAL_MS=500\n"
BROKEN = Pool("broken", "/srv/there-is-none.gguf")
CAPACITY = 8


class Prometheus:
    """A Prometheus in the network of a machine, with the shipped configuration at shorter intervals."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine, self.directory = machine, directory
        self._client = Client(machine.container, PORT)

    def start(self) -> subprocess.Popen[bytes]:
        rules = (MONITORING / "llama-orch.rules.yml").read_text()
        for long, short in PENDING.items():
            rules = rules.replace(long, short)
        for long, short in SPANS.items():
            rules = re.sub(rf"(\[|offset |for: ){long}\b", rf"\g<1>{short}", rules)
        (self.directory / "rules.yml").write_text(rules)
        config = (MONITORING / "prometheus.yml").read_text().replace("15s", "1s")
        config = re.sub(r"- /usr/share.*", f"- {self.directory}/rules.yml", config)
        (self.directory / "prometheus.yml").write_text(config)
        enter = ["nsenter", f"--net=/proc/{self.machine.container.init}/ns/net"]
        command = [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--query.lookback-delta=5s",
        ]
        with (self.directory / "log").open("wb") as log:
            return subprocess.Popen(
                [*enter, *command, f"--web.listen-address=127.0.0.1:{PORT}"], cwd=self.directory, stderr=log, stdout=log
            )

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Return the result of an instant query. Raises AssertionError with Prometheus's word if it is refused."""
        answer = self._client.get(f"/api/v1/query?query={quote(promql)}")
        assert answer.status == 200, answer.body
        result: list[dict[str, Any]] = answer.json["data"]["result"]
        return result

    def firing(self) -> set[str]:
        return {alert["metric"]["alertname"] for alert in self.query('ALERTS{alertstate="firing"}')}

    def until_firing(self, name: str) -> None:
        until(lambda: name in self.firing(), f"{name} to fire", WITHIN_S, lambda: f"{self.firing()}")


@pytest.fixture(scope="module")
def machine(stocked: Machine, llama_server_tar: Archive, driver: ImitatedDriver) -> Machine:
    """A machine that serves two pools, with imitated GPUs and all metrics ports."""
    container = stocked.container
    container.write(f"/usr/lib/x86_64-linux-gnu/{NAME}", (library() / NAME).read_bytes(), mode=0o755)
    stocked.drop_in("pool-managerd.service", MANAGER_DROP_IN)
    stocked.set_variable("/etc/llama-orch/queen-rbee.env", "ORCHD_ADMISSION_CAPACITY", str(CAPACITY))
    stocked.set_variable(PROVISIONER_ENV, "ENGINE_PROVISIONER_METRICS_ADDR", "127.0.0.1:9092")
    return serve_pools(stocked, llama_server_tar)


@pytest.fixture(scope="module")
def driver(stocked: Machine) -> ImitatedDriver:
    second = ImitatedGpu(1, "GPU-00000000-0000-0000-0000-00000000000b", pci="00000000:11:00.0")
    return ImitatedDriver(stocked.container.path("/srv/hardware"), [ImitatedGpu(), second])


@pytest.fixture(scope="module")
def prometheus(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if not shutil.which("prometheus"):
        skip_or_fail("no Prometheus (apt install prometheus)")
    running = Prometheus(machine, tmp_path_factory.mktemp("prometheus"))
    process = running.start()
    try:
        until(lambda: len(_up(running)) == 3, "three daemons to be scraped", WITHIN_S)
        yield running
    finally:
        process.terminate()
        process.wait()


def _up(prometheus: Prometheus) -> list[object]:
    try:
        return [*prometheus.query("up == 1")]
    except (OSError, AssertionError):  # it is starting
        return []


def test_healthy_machine_is_silent(machine: Machine, prometheus: Prometheus) -> None:
    for _answer in range(5):
        assert complete(machine.queen, max_tokens=4).last.name == "end"
    seen = prometheus.query("count_over_time(up[1m])")
    until(lambda: prometheus.query("count_over_time(up[30s]) > 15"), "some evaluations", WITHIN_S)
    assert seen
    assert prometheus.firing() == set()


@dataclass(frozen=True)
class Site:
    """What a fault is made on."""

    machine: Machine
    driver: ImitatedDriver
    archive: Archive
    prometheus: Prometheus


Fault = Callable[[Site], object]


def kill_engine(site: Site) -> None:
    for _kill in range(4):
        site.machine.systemctl("kill", "--signal=KILL", "llama-engine@default.service")
        until(lambda: site.machine.pool("default").get("state") != "ready", "the pool to fail", WITHIN_S)
        site.machine.wait_until_served("default")


def break_answers(site: Site) -> None:
    for _kill in range(3):
        site.machine.wait_until_served("slow")
        task = submit(site.machine.queen, max_tokens=500, placement={"mode": "pin", "pin_pool_id": "slow"})
        # before its first token it would be run again instead of failing
        next(event for event in site.machine.queen.events(f"/v2/tasks/{task}/events") if event.name == "token")
        site.machine.systemctl("kill", "--signal=KILL", "llama-engine@slow.service")


def add_broken_pool(site: Site) -> None:
    site.machine.configure(site.archive, *POOLS, BROKEN)
    site.machine.systemctl("reload", "engine-provisioner")


def write_no_handoff(site: Site) -> None:
    site.machine.container.check("sh", "-c", "echo '{}' >/run/llama-orch/engines/broken.json")


def fill_queue(site: Site) -> None:
    body = {"prompt": "the river", "max_tokens": 500, "placement": {"mode": "pin", "pin_pool_id": "slow"}}
    until(lambda: site.machine.queen.post("/v2/tasks", body).status == 429, "the queue to be full", WITHIN_S)


def restart_queen(site: Site) -> None:
    """Restart it often, each time when Prometheus has seen the last start."""
    seen: set[str] = set()

    def new_start() -> set[str]:
        starts = site.prometheus.query('process_start_time_seconds{job="queen-rbee"}')
        return {str(each["value"][1]) for each in starts} - seen

    for _restart in range(5):
        seen |= until(new_start, "the last start to be scraped", WITHIN_S)
        site.machine.systemctl("restart", "queen-rbee.service")


def cancel_all(machine: Machine) -> None:
    for state in ("queued", "running"):
        for task in machine.queen.get(f"/v2/tasks?state={state}").json["tasks"]:
            machine.queen.post(f"/v2/tasks/{task['task_id']}/cancel")


FAULTS: dict[str, Fault] = {
    "LlamaOrchGpuThrottled": lambda site: site.driver.change(temp=95, reasons=0x40),
    "LlamaOrchGpuLost": lambda site: site.driver.change(1, lost=1),
    "LlamaOrchGpuFenced LlamaOrchXid": lambda site: site.driver.inject(79),
    "LlamaOrchHandoffRejected": write_no_handoff,
    "LlamaOrchPoolFailed": add_broken_pool,
    "LlamaOrchEngineRestarts": kill_engine,
    "LlamaOrchRequestsFail": break_answers,
    "LlamaOrchDaemonRestarts": restart_queen,
    "LlamaOrchQueueFull": fill_queue,
}


@pytest.mark.parametrize("alerts", FAULTS)
def test_alert_fires_on_its_fault(
    machine: Machine, prometheus: Prometheus, driver: ImitatedDriver, llama_server_tar: Archive, alerts: str
) -> None:
    before = prometheus.firing()
    FAULTS[alerts](Site(machine, driver, llama_server_tar, prometheus))
    for name in alerts.split():
        assert name not in before
        prometheus.until_firing(name)


def test_each_query_of_the_dashboards_returns_data(
    machine: Machine, prometheus: Prometheus, driver: ImitatedDriver, llama_server_tar: Archive
) -> None:
    """After the faults, as there are no numbers of faults before."""
    cancel_all(machine)
    machine.wait_until_served("default")
    assert machine.queen.post("/v2/pools/default/unload").status == 202
    until(lambda: machine.pool("default")["state"] == "unloaded", "the pool to be unloaded", WITHIN_S)
    assert machine.queen.post("/v2/pools/default/preload").status == 202
    machine.wait_until_served("default")
    task = submit(machine.queen, max_tokens=500)
    assert machine.queen.post(f"/v2/tasks/{task}/cancel").status < 300
    assert complete(machine.queen, max_tokens=4).last.name == "end"
    fill_queue(Site(machine, driver, llama_server_tar, prometheus))
    queries = {
        target["expr"].replace("$__rate_interval", "1m")
        for file in (MONITORING / "grafana").glob("*.json")
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
    }
    expected = [query for query in queries if not any(name in query for name in NOT_ON_THIS_MACHINE)]

    def empty() -> list[str]:
        return [query for query in expected if not prometheus.query(query)]

    until(lambda: not empty(), "data", WITHIN_S, lambda: "\n".join(empty()))


def test_alerts_fire_when_daemons_are_stopped(machine: Machine, prometheus: Prometheus) -> None:
    machine.systemctl("stop", TARGET)
    for name in ("LlamaOrchQueenDown", "LlamaOrchPoolManagerDown", "LlamaOrchProvisionerDown"):
        prometheus.until_firing(name)
