"""The state of the queen as GET /v2/events streams it: the model of `data:` for each name in `event:`.

A stream begins with `hello`; then each section comes as a whole, and `ready` follows. From then on only changes come.
"""

from datetime import datetime

from pydantic import JsonValue

from llama_orch.contracts.base import Outbound


class LiveHello(Outbound):
    """The first event. `at` is the queen's time, to show ages by.

    `pool_actions` and `node_actions` are the last words of the paths /v2/pools/{id}/… and /v2/nodes/{id}/… to which
    this release takes a POST.
    """

    at: datetime
    version: str
    profile: str
    pool_actions: list[str]
    node_actions: list[str]


class LiveReady(Outbound):
    """Every section has come once."""


class LiveChange(Outbound):
    """A change of one section: documents that are new or changed, and the keys of those that are gone."""

    set: dict[str, dict[str, JsonValue]] = {}
    gone: list[str] = []


class LiveSummary(Outbound):
    """The only document of the section `queen`. `gpu_problems` are those of GET /v2/gpus."""

    queued_interactive: int
    queued_batch: int
    capacity: int
    policy: str
    running: int
    pools: int
    pools_ready: int
    nodes: int
    nodes_online: int
    gpu_problems: dict[str, str] = {}


class LiveMemory(Outbound):
    """The memory of a device, by machine: a node, or the URL of a pool-managerd."""

    machine: str
    device: str
    total_bytes: int
    free_bytes: int


class LiveJournalEntry(Outbound):
    """An event of the journal catalog that queen-rbee logged. `advice` is the catalog's."""

    at: datetime
    level: str
    event: str
    text: str
    advice: str


SECTIONS = {
    "queen": "a summary (LiveSummary)",
    "nodes": "nodes as in GET /v2/nodes, without pools, GPUs and age",
    "gpus": "GPUs as in GET /v2/gpus",
    "memory": "the memory of the machines (LiveMemory)",
    "pools": "pools as in GET /v2/pools, without replicas and idle times",
    "tasks": "tasks as in GET /v2/tasks: those that run, the first that wait, and the last that ended",
    "operations": "operations as in GET /v2/operations",
    "models": "models of the catalog as in GET /v2/catalog/models",
    "journal": "the last events of queen-rbee's journal (LiveJournalEntry)",
}
"""The documents of each section, whose name is that of its event."""

EVENTS: dict[str, type[Outbound]] = {"hello": LiveHello, **dict.fromkeys(SECTIONS, LiveChange), "ready": LiveReady}
"""All events by name."""
