"""What `orchctl logs` is asked about: a task, pool or node, the journal fields that name it, and other machines."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import trio

from llama_orch.contracts.nodes import NodeList, NodeView
from llama_orch.contracts.pools import PoolList
from llama_orch.contracts.tasks import TaskView
from llama_orch.service.exit import ExitStatus
from llama_orch.service.machine_id import known_id
from orchctl.check.local_node import ID_FILES
from orchctl.check.queries import NOT_QUERIED, fetch, query
from orchctl.client import QueenClient, build_path
from orchctl.errors import CommandError
from orchctl.nurseries import unwrap_groups

NODE_UNITS = ("pool-managerd.service", "engine-provisioner.service")
SLICE = "llama-engines.slice"
NODE_COMMAND = ("journalctl", "-u", "pool-managerd", "-u", "engine-provisioner", "-u", "llama-engine*")


@dataclass(frozen=True)
class Known:
    """What the queen knows about an id; each is the error if it knows nothing or does not answer."""

    task: TaskView | CommandError = NOT_QUERIED
    pools: PoolList | CommandError = NOT_QUERIED
    nodes: NodeList | CommandError = NOT_QUERIED
    machine_id: str | None = None

    @property
    def unreachable(self) -> CommandError | None:
        """Why the queen could not be asked; None if it answered."""
        if isinstance(self.pools, CommandError):
            return self.pools
        return None


@dataclass(frozen=True)
class Subject:
    """A kind and an id; the groups of FIELD=value that name it; commands that show the rest on other machines.

    `known` is false if the queen does not know it, so that only the journal can tell whether it exists.
    """

    kind: str
    name: str
    matches: Sequence[Sequence[str]]
    elsewhere: Sequence[str] = ()
    known: bool = True


async def ask_queen(queen: QueenClient, name: str) -> Known:
    """Ask for a task, the pools and the nodes, side by side."""
    results: dict[str, object] = {}

    async def ask(key: str, path: str, model: type) -> None:
        results[key] = await query(partial(fetch, queen, path, model))

    with unwrap_groups():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "task", build_path("/v2/tasks", name), TaskView)
            nursery.start_soon(ask, "pools", "/v2/pools", PoolList)
            nursery.start_soon(ask, "nodes", "/v2/nodes", NodeList)
    return Known(**results, machine_id=known_id(*ID_FILES))  # type: ignore[arg-type]


def identify(name: str, known: Known) -> Subject:
    """Return the subject with the id `name`: a task, else a pool, else a node, else any field that may have it."""
    nodes = [] if isinstance(known.nodes, CommandError) else known.nodes.nodes
    others = {node.node_id: node for node in nodes if node.machine_id != known.machine_id}
    if isinstance(known.task, TaskView):
        return _task(name, known.task, others.get(known.task.replica_id or ""))
    pools = [] if isinstance(known.pools, CommandError) else known.pools.pools
    if here := [pool for pool in pools if pool.pool_id == name]:
        away = [others[pool.node_id] for pool in here if pool.node_id in others]
        command = ("orchctl", "logs", name)
        return Subject("pool", name, _pool_matches(name), [_on(node, command) for node in away])
    for node in nodes:
        if node.node_id == name:
            return _node(node, local=name not in others)
    fields = ("CORRELATION_ID", "JOB_ID", "NODE_ID")
    return Subject("id", name, [*((f"{field}={name}",) for field in fields), *_pool_matches(name)], known=False)


def _task(name: str, task: TaskView, node: NodeView | None) -> Subject:
    correlation = task.correlation_id
    matches = [(f"JOB_ID={task.job_id}",), *([(f"CORRELATION_ID={correlation}",)] if correlation else [])]
    command = ("orchctl", "logs", correlation or str(task.job_id))
    return Subject("task", name, matches, [_on(node, command)] if node else [])


def _pool_matches(pool_id: str) -> list[tuple[str, ...]]:
    units = (f"llama-engine@{pool_id}.service", f"llama-engine-container@{pool_id}.service")
    return [(f"POOL_ID={pool_id}",), *((f"UNIT={unit}", "_PID=1") for unit in units)]


def _node(node: NodeView, *, local: bool) -> Subject:
    matches: list[tuple[str, ...]] = [(f"NODE_ID={node.node_id}",)]
    if local:
        matches += [(f"_SYSTEMD_UNIT={unit}",) for unit in NODE_UNITS]
        matches += [(f"UNIT={unit}", "_PID=1") for unit in NODE_UNITS]
        return Subject("node", node.node_id, [*matches, (f"_SYSTEMD_SLICE={SLICE}",)])
    return Subject("node", node.node_id, matches, [_on(node, NODE_COMMAND)])


def _on(node: NodeView, command: Sequence[str]) -> str:
    host = urlsplit(node.address).hostname or node.node_id
    return shlex.join(("ssh", host, shlex.join(command)))


def unknown(subject: Subject, known: Known) -> CommandError:
    """Return the error for an id that neither the queen nor the journal knows."""
    hints = ["Ids: orchctl tasks, orchctl pools, orchctl nodes, or the X-Correlation-Id of an answer."]
    if known.unreachable:
        hints.append(f"queen-rbee could not be asked ({known.unreachable.message}), so only the journal was searched.")
    message = f"nothing here knows {subject.name}: no task, pool, node or correlation id"
    return CommandError(message, "\n".join(hints), ExitStatus.NO_INPUT)


def remarks(subject: Subject, count: int) -> Iterator[str]:
    """Yield what the user should know besides the entries, of which there were `count`."""
    if not count:
        yield f"the journal of this machine has no entries of {subject.kind} {subject.name}"
    for command in dict.fromkeys(subject.elsewhere):
        yield f"the journal of its machine is not here; there: {command}"
