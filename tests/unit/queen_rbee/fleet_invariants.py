"""Invariants of queen-rbee and its fleet while nothing is in progress. Each yields its violations."""

from collections import Counter
from collections.abc import Iterator

from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.placement import pick
from queen_rbee.pools.replica_index import ReplicaIndex
from queen_rbee.sessions.session import Session
from queen_rbee.status import show_gauges
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.fleet_simulation import FleetSimulation


def violations(simulation: FleetSimulation) -> list[str]:
    of_tasks = _each_task_is_in_one_place, _running_tasks_hold_the_slots, _no_placeable_task_waits
    of_fleet = _fleet_matches_model, _directory_matches_rebuild, _store_holds_open_entries
    invariants = (*of_tasks, *of_fleet)
    return [*simulation.violations, *(text for invariant in invariants for text in invariant(simulation))]


def waiting(simulation: FleetSimulation) -> list[Task]:
    return list(simulation.queen.queue.order())


def _each_task_is_in_one_place(simulation: FleetSimulation) -> Iterator[str]:
    running, queued = simulation.queen.runs._attempts, waiting(simulation)
    for task in simulation.tasks:
        places = [*(["running"] * (task in running)), *["waiting" for each in queued if each is task]]
        places += ["ended"] * task.state.final
        if len(places) != 1:
            yield f"task {task.state} (answer started: {task.answer_started}) is in these places: {places}"
    if lost := simulation.accepted - {task.task_id for task in simulation.tasks}:
        yield f"unknown tasks: {lost}"
    if set(running) != set(simulation.channels):
        yield "a running task has no engine, or an engine an unknown task"


def _running_tasks_hold_the_slots(simulation: FleetSimulation) -> Iterator[str]:
    registry = simulation.queen.registry
    held = Counter(attempt.target.key for attempt in simulation.queen.runs._attempts.values())
    if held != registry.leases_by_replica():
        yield f"leased slots: {registry.leases_by_replica()}, running tasks: {held}"
    for key in held:
        node = simulation.model.nodes.get(key[1])
        if node and node.offline:
            yield f"a task runs on {key}, whose node is offline"
    for node_id in simulation.model.nodes:
        reported, actual = (
            simulation.fleet.node(node_id).active_leases,
            sum(held[key] for key in held if key[1] == node_id),
        )
        if reported != actual:
            yield f"{actual} tasks run on {node_id}, reported: {reported}"


def _no_placeable_task_waits(simulation: FleetSimulation) -> Iterator[str]:
    replicas = simulation.queen.registry.replicas
    for task in waiting(simulation):
        if replica := pick(list(replicas.suitable(task.demand)), task.demand, "round-robin", 0):
            yield f"a task waits although {replica.key} could take it"


def _fleet_matches_model(simulation: FleetSimulation) -> Iterator[str]:
    registry, model = simulation.queen.registry, simulation.model
    replicas = {
        replica.key: (replica.url, replica.state, replica.ready and not replica.draining, replica.slots_total)
        for replica in registry.replicas.all()
    }
    if replicas != model.places:
        yield f"replicas: {replicas}, expected: {model.places}"
    nodes, expected = (simulation.fleet.online, simulation.fleet.size), (model.online, len(model.nodes))
    if nodes != expected:
        yield f"online and known nodes: {nodes}, expected: {expected}"
    ready = model.ready_by_id
    if (registry.ready_by_id, registry.ready_pools) != (ready, sum(ready.values())):
        yield f"ready pools: {registry.ready_by_id}, expected: {ready}"


def _directory_matches_rebuild(simulation: FleetSimulation) -> Iterator[str]:
    replicas = simulation.queen.registry.replicas
    rebuilt = ReplicaIndex(list(replicas.all()))
    demands = [Demand(), *(task.demand for task in simulation.tasks)]
    if any(list(replicas.suitable(demand)) != list(rebuilt.suitable(demand)) for demand in demands):
        yield "the suitable replicas differ from those of a rebuilt directory"
    if replicas.slots_open != rebuilt.slots_open:
        yield f"{replicas.slots_open} open slots, expected {rebuilt.slots_open}"


def _store_holds_open_entries(simulation: FleetSimulation) -> Iterator[str]:
    stored, known = set(simulation.store.documents["node"]), set(simulation.model.nodes)
    if stored != known:
        yield f"stored nodes: {stored}, expected: {known}"
    open_tasks = {task.task_id for task in simulation.tasks if task.durable and not task.state.final}
    if open_tasks != set(simulation.store.tasks):
        yield "the stored tasks are not the open ones"


def leftovers(simulation: FleetSimulation) -> list[str]:
    """Return the violations after every task has ended and silent nodes have been forgotten."""
    queen, model = simulation.queen, simulation.model
    problems = [f"task {task.state} has not ended" for task in simulation.tasks if not task.state.final]
    problems += [f"{session.open_turns} open turns" for session in _sessions(simulation) if session.open_turns]
    show_gauges(queen.queue, queen.registry, queen.metrics)
    pools = {pool.pool_id for node in model.nodes.values() for pool in node.pools}
    known = {"node_id": {"", *model.nodes}, "replica_id": {"", *model.nodes}, "pool_id": {"", *pools}}
    for metric in queen.metrics.registry.collect():
        for sample in metric.samples:
            gone = [f"{name}={value}" for name, value in sample.labels.items() if value not in known.get(name, {value})]
            problems += [f"series of a removed object: {sample.name} {gone}"] if gone else []
    return problems


def _sessions(simulation: FleetSimulation) -> list[Session]:
    return list(simulation.queen.sessions._table.newest_first())
