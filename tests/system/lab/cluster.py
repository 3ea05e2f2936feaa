"""A cluster of booted machines, configured as by an operator: queen-rbee and nodes that serve one pool each.

The pools of all nodes have the same id, so that each node can run each task. `node_of` tells which node did.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

from tests.engines.llama_server import Archive
from tests.system.lab.bridge import Cable, bridge
from tests.system.lab.client import POOL_MANAGER, QUEEN, Client
from tests.system.lab.container import booted
from tests.system.lab.machine import READY_WITHIN_S, TARGET, Machine, Pool
from tests.system.lab.rootfs import SUITES
from tests.system.lab.snapshot import snapshot
from tests.system.lab.waiting import until

SUITE = SUITES[0]
ENGINE = "llama-engine@default.service"
MANAGER = "pool-managerd.service"
TOKEN_FILE = "/etc/llama-orch/api-token"
QUEEN_ENV = "/etc/llama-orch/queen-rbee.env"
NODE_ENV = "/etc/llama-orch/pool-managerd.env"

NODE_TIMEOUT_S = 5
STALE_CHECK_S = 1
HEARTBEAT_S = 1

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Node:
    """A GPU machine of the cluster. `id` is its node id."""

    id: str
    machine: Machine
    cable: Cable

    @property
    def address(self) -> str:
        """The URL at which queen-rbee reaches the node."""
        return f"http://{self.cable.address}:{POOL_MANAGER}"

    def rename(self, node_id: str) -> None:
        """Set the node id, which takes effect at the next start."""
        self.machine.set_variable(NODE_ENV, "POOL_MANAGERD_NODE_ID", node_id)

    def set_token(self, token: str) -> None:
        """Set the token, which takes effect at the next start."""
        self.machine.container.write(TOKEN_FILE, f"{token}\n", mode=0o600)


@dataclass(frozen=True)
class Cluster:
    """A running cluster. `head` is the machine of queen-rbee."""

    head: Machine
    nodes: tuple[Node, ...]
    token: str

    @property
    def queen(self) -> Client:
        """A client of queen-rbee."""
        return self.head.queen

    def listed(self) -> dict[str, dict[str, Any]]:
        """Return queen-rbee's list of nodes, by id. Raises the exceptions of `Client.get`, ValueError and KeyError."""
        nodes = self.queen.get("/v2/nodes").json["nodes"]
        return {node["node_id"]: node for node in nodes}

    def status(self, node: Node) -> str:
        """Return queen-rbee's status of a node, or `gone` if it does not list the node."""
        return str(self.listed().get(node.id, {"status": "gone"})["status"])

    def node_of(self, task_id: str) -> str:
        """Return the id of the node that the task was last placed on, or "" if it was not placed."""
        return str(self.queen.get(f"/v2/tasks/{task_id}").json.get("replica_id") or "")

    def running_on(self, node: Node) -> set[str]:
        """Return the ids of the tasks that queen-rbee reports as running on the node."""
        tasks = self.queen.get("/v2/tasks?state=running").json["tasks"]
        return {task["task_id"] for task in tasks if task["replica_id"] == node.id}

    def wait_for(self, status: str, *nodes: Node, limit_s: float = READY_WITHIN_S) -> None:
        """Wait until queen-rbee reports this status for the nodes. Raises TimeoutError with details."""
        for node in nodes:
            self._until(lambda node: self.status(node) == status, node, status, limit_s)

    def wait_until_serving(self, *nodes: Node) -> None:
        """Wait until queen-rbee can place tasks on the nodes (all by default). Raises TimeoutError."""
        for node in nodes or self.nodes:
            self._until(self._serves, node, "online with a pool that is ready", READY_WITHIN_S)

    def _until(self, condition: Callable[[Node], bool], node: Node, what: str, limit_s: float) -> None:
        until(lambda: condition(node), f"{node.id} to be {what}", limit_s, lambda: self._details(node))

    def _serves(self, node: Node) -> bool:
        try:
            listed = self.listed().get(node.id)
        except (OSError, HTTPException, ValueError, KeyError):
            return False
        return listed is not None and listed["status"] == "online" and any(pool["ready"] for pool in listed["pools"])

    def _details(self, node: Node) -> str:
        answer = self.queen.get("/v2/nodes").body
        return f"{answer}\n--- {node.id}\n{node.machine.recent()}\n--- queen\n{self.head.recent()}"


@contextmanager
def running_cluster(
    deb: Path, archive: Archive, models: dict[str, Path], pool: Pool, nodes: int = 3
) -> Iterator[Cluster]:
    """Run a cluster of new machines for the duration of the block. Raises CommandFailed and as `booted`."""
    token = secrets.token_hex(32)
    names = ["queen", *(f"node-{number + 1}" for number in range(nodes))]
    # A machine ends with the thread that booted it, so the threads must outlive all machines.
    with ThreadPoolExecutor(len(names)) as threads, bridge() as network, ExitStack() as machines:
        files = machines.enter_context(snapshot(SUITE, deb, archive, models))
        containers = _in_parallel(threads, lambda name: machines.enter_context(booted(SUITE, name, files)), names)
        cables = [network.connect(container) for container in containers]
        head, *others = [Machine(container, token) for container in containers]
        members = tuple(Node(*parts) for parts in zip(names[1:], others, cables[1:], strict=True))
        queen_url = f"http://{cables[0].address}:{QUEEN}"
        _start_queen(head, token)
        _in_parallel(threads, lambda node: _start_node(node, token, queen_url, archive, pool), members)
        running = Cluster(head, members, token)
        running.wait_until_serving()
        yield running


def _in_parallel(threads: ThreadPoolExecutor, work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Call `work` for all items in parallel. Return or raise when the last call has ended."""
    futures = [threads.submit(work, item) for item in items]
    wait(futures)
    return [future.result() for future in futures]


def _start_queen(machine: Machine, token: str) -> None:
    machine.container.write(TOKEN_FILE, f"{token}\n", mode=0o600)
    for name, value in (
        ("ORCHESTRATORD_CLOUD_PROFILE", "true"),
        ("ORCHESTRATORD_NODE_TIMEOUT_MS", str(NODE_TIMEOUT_S * 1000)),
        ("ORCHESTRATORD_STALE_CHECK_INTERVAL_SECS", str(STALE_CHECK_S)),
    ):
        machine.set_variable(QUEEN_ENV, name, value)
    _start(machine, without=("pool-managerd.service", "engine-provisioner.service"))


def _start_node(node: Node, token: str, queen_url: str, archive: Archive, pool: Pool) -> None:
    node.machine.configure(archive, pool)
    node.set_token(token)
    node.rename(node.id)
    for name, value in (
        ("ORCHESTRATORD_URL", queen_url),
        ("POOL_MANAGERD_BIND_ADDR", f"0.0.0.0:{POOL_MANAGER}"),
        ("POOL_MANAGERD_ADVERTISE_URL", node.address),
        ("POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS", str(HEARTBEAT_S)),
    ):
        node.machine.set_variable(NODE_ENV, name, value)
    _start(node.machine, without=("queen-rbee.service",))


def _start(machine: Machine, without: tuple[str, ...]) -> None:
    """Start the target without some units. `daemon-reload` updates the addresses of the sockets."""
    machine.systemctl("enable", TARGET)
    machine.systemctl("disable", *without)
    machine.systemctl("daemon-reload")
    machine.systemctl("start", TARGET)
