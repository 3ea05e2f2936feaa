"""Invariants of a queen and its fleet that hold whenever nothing is in progress. Each yields its violations."""

from collections import Counter
from collections.abc import Iterator

from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.placement import pick
from queen_rbee.pools.replica_index import ReplicaIndex
from queen_rbee.sessions.session import Session
from queen_rbee.status import show_gauges
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.fleet_world import World


def violations(world: World) -> list[str]:
    """Return all violations."""
    tasks = _each_task_is_in_one_place, _leases_match_running_tasks, _no_task_waits_for_open_replica
    fleet = _registry_matches_model, _index_matches_full_scan, _store_matches_memory
    return [*world.wrong, *(words for invariant in (*tasks, *fleet) for words in invariant(world))]


def waiting(world: World) -> list[Task]:
    return list(world.queen.dispatcher.queue.order())


def _each_task_is_in_one_place(world: World) -> Iterator[str]:
    running, queued = world.queen.dispatcher.runs._attempts, waiting(world)
    for task in world.tasks:
        places = [*(["runs"] * (task in running)), *["waits" for each in queued if each is task]]
        places += ["has ended"] * task.state.final
        if len(places) != 1:
            yield f"task {task.state}, shown={task.shown}, is in these places: {places}"
    if lost := world.accepted - {task.task_id for task in world.tasks}:
        yield f"accepted tasks are lost: {lost}"
    if set(running) != set(world.lines):
        yield "running tasks and engine connections differ"


def _leases_match_running_tasks(world: World) -> Iterator[str]:
    registry = world.queen.dispatcher.registry
    held = Counter(attempt.target.key for attempt in world.queen.dispatcher.runs._attempts.values())
    if held != registry.leases_by_replica:
        yield f"leases are {registry.leases_by_replica}, but running tasks hold {held}"
    for key in held:
        node = world.model.nodes.get(key[1])
        if node and node.offline:
            yield f"a task runs on {key}, whose node is offline"
    for node_id in world.model.nodes:
        reported, actual = world.fleet.node(node_id).active_leases, sum(held[key] for key in held if key[1] == node_id)
        if reported != actual:
            yield f"{actual} tasks run on {node_id}, reported are {reported}"


def _no_task_waits_for_open_replica(world: World) -> Iterator[str]:
    replicas = world.queen.dispatcher.registry.replicas
    for task in waiting(world):
        if found := pick(list(replicas.suitable(task.demand)), task.demand, "round-robin", 0):
            yield f"a task waits although {found.key} could take it"


def _registry_matches_model(world: World) -> Iterator[str]:
    registry, model = world.queen.dispatcher.registry, world.model
    replicas = {
        found.key: (found.url, found.state, found.ready and not found.draining, found.slots_total)
        for found in registry.replicas.all()
    }
    if replicas != model.places:
        yield f"replicas are {replicas}, expected {model.places}"
    if (world.fleet.online, world.fleet.size) != (model.online, len(model.nodes)):
        online, size = world.fleet.online, world.fleet.size
        yield f"{online} of {size} nodes are online, expected {model.online} of {len(model.nodes)}"
    ready = model.ready_by_id
    if (registry.ready_by_id, registry.ready_pools) != (ready, sum(ready.values())):
        yield f"ready pools are {registry.ready_by_id}, expected {ready}"


def _index_matches_full_scan(world: World) -> Iterator[str]:
    replicas = world.queen.dispatcher.registry.replicas
    rebuilt = ReplicaIndex(list(replicas.all()))
    demands = [Demand(), *(task.demand for task in world.tasks)]
    if any(list(replicas.suitable(demand)) != list(rebuilt.suitable(demand)) for demand in demands):
        yield "the suitable replicas differ from those of a new index"
    if replicas.slots_open != rebuilt.slots_open:
        yield f"{replicas.slots_open} slots are open, expected {rebuilt.slots_open}"


def _store_matches_memory(world: World) -> Iterator[str]:
    stored, known = set(world.store.documents["node"]), set(world.model.nodes)
    if stored != known:
        yield f"stored nodes are {stored}, known nodes {known}"
    open_tasks = {task.task_id for task in world.tasks if task.durable and not task.state.final}
    if open_tasks != set(world.store.tasks):
        yield "the stored tasks differ from the open tasks"


def left_behind(world: World) -> list[str]:
    """Return the violations after every task has ended and silent nodes have been checked."""
    dispatcher, model = world.queen.dispatcher, world.model
    found = [f"task {task.state} has not ended" for task in world.tasks if not task.state.final]
    found += [f"{session.open_turns} turns are open" for session in _sessions(world) if session.open_turns]
    show_gauges(dispatcher)
    pools = {pool.pool_id for node in model.nodes.values() for pool in node.pools}
    known = {"node_id": {"", *model.nodes}, "replica_id": {"", *model.nodes}, "pool_id": {"", *pools}}
    for metric in dispatcher.metrics.registry.collect():
        for sample in metric.samples:
            stale = [
                f"{name}={value}" for name, value in sample.labels.items() if value not in known.get(name, {value})
            ]
            found += [f"a stale series: {sample.name} {stale}"] if stale else []
    return found


def _sessions(world: World) -> list[Session]:
    return list(world.queen.sessions._table.newest_first())
