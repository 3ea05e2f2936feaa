"""What holds of a queen and her fleet whenever nothing is under way: each promise is a list of what breaks it."""

from collections import Counter
from collections.abc import Iterator

from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.placement import pick
from queen_rbee.pools.replica_index import ReplicaIndex
from queen_rbee.sessions.session import Session
from queen_rbee.status import show_gauges
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.fleet_world import World


def broken(world: World) -> list[str]:
    """All that is wrong now."""
    promises = _each_task_is_in_one_place, _slots_are_those_of_running_tasks, _nobody_waits_for_nothing
    fleet = _the_fleet_is_as_it_told, _lists_are_those_of_a_walk_through_all, _the_store_has_what_is_open
    return [*world.wrong, *(words for promise in (*promises, *fleet) for words in promise(world))]


def waiting(world: World) -> list[Task]:
    return list(world.queen.dispatcher.queue.order())


def _each_task_is_in_one_place(world: World) -> Iterator[str]:
    running, queued = world.queen.dispatcher.runs._attempts, waiting(world)
    for task in world.tasks:
        places = [*(["runs"] * (task in running)), *["waits" for each in queued if each is task]]
        places += ["has ended"] * task.state.final
        if len(places) != 1:
            yield f"task {task.state}, of which something has come: {task.shown}, is in these places: {places}"
    if lost := world.accepted - {task.task_id for task in world.tasks}:
        yield f"of these nothing is known: {lost}"
    if set(running) != set(world.lines):
        yield "not each task that runs is with an engine"


def _slots_are_those_of_running_tasks(world: World) -> Iterator[str]:
    registry = world.queen.dispatcher.registry
    held = Counter(attempt.target.key for attempt in world.queen.dispatcher.runs._attempts.values())
    if held != registry.leases_by_replica:
        yield f"slots are held: {registry.leases_by_replica}, by tasks: {held}"
    for key in held:
        node = world.model.nodes.get(key[1])
        if node and node.offline:
            yield f"a task goes on on {key}, whose node is offline"
    for node_id in world.model.nodes:
        told, real = world.fleet.node(node_id).active_leases, sum(held[key] for key in held if key[1] == node_id)
        if told != real:
            yield f"{real} tasks run on {node_id}, it is said: {told}"


def _nobody_waits_for_nothing(world: World) -> Iterator[str]:
    replicas = world.queen.dispatcher.registry.replicas
    for task in waiting(world):
        if found := pick(list(replicas.suitable(task.demand)), task.demand, "round-robin", 0):
            yield f"a task waits that {found.key} could take"


def _the_fleet_is_as_it_told(world: World) -> Iterator[str]:
    registry, model = world.queen.dispatcher.registry, world.model
    replicas = {
        found.key: (found.url, found.state, found.ready and not found.draining, found.slots_total)
        for found in registry.replicas.all()
    }
    if replicas != model.places:
        yield f"replicas are {replicas} and must be {model.places}"
    if (world.fleet.online, world.fleet.size) != (model.online, len(model.nodes)):
        yield f"{world.fleet.online} of {world.fleet.size} nodes are heard, of {model.online} of {len(model.nodes)}"
    ready = model.ready_by_id
    if (registry.ready_by_id, registry.ready_pools) != (ready, sum(ready.values())):
        yield f"pools are ready: {registry.ready_by_id}, and must be: {ready}"


def _lists_are_those_of_a_walk_through_all(world: World) -> Iterator[str]:
    replicas = world.queen.dispatcher.registry.replicas
    anew = ReplicaIndex(list(replicas.all()))
    demands = [Demand(), *(task.demand for task in world.tasks)]
    if any(list(replicas.suitable(demand)) != list(anew.suitable(demand)) for demand in demands):
        yield "what is suitable is not what would be found anew"
    if replicas.slots_open != anew.slots_open:
        yield f"{replicas.slots_open} slots are open, of {anew.slots_open}"


def _the_store_has_what_is_open(world: World) -> Iterator[str]:
    stored, known = set(world.store.documents["node"]), set(world.model.nodes)
    if stored != known:
        yield f"nodes are stored: {stored}, and known: {known}"
    open_tasks = {task.task_id for task in world.tasks if task.durable and not task.state.final}
    if open_tasks != set(world.store.tasks):
        yield "the tasks of the store are not those that are open"


def left_behind(world: World) -> list[str]:
    """What is wrong when every task has ended and silent nodes have been looked for."""
    dispatcher, model = world.queen.dispatcher, world.model
    found = [f"task {task.state} has not ended" for task in world.tasks if not task.state.final]
    found += [f"{session.open_turns} turns are open" for session in _sessions(world) if session.open_turns]
    show_gauges(dispatcher)
    pools = {pool.pool_id for node in model.nodes.values() for pool in node.pools}
    known = {"node_id": {"", *model.nodes}, "replica_id": {"", *model.nodes}, "pool_id": {"", *pools}}
    for metric in dispatcher.metrics.registry.collect():
        for sample in metric.samples:
            gone = [f"{name}={value}" for name, value in sample.labels.items() if value not in known.get(name, {value})]
            found += [f"a series of what is gone: {sample.name} {gone}"] if gone else []
    return found


def _sessions(world: World) -> list[Session]:
    return list(world.queen.sessions._table.newest_first())
