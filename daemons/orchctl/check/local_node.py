"""The machine that `orchctl check` runs on, and its pool-managerd if it is a node."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from llama_orch.addresses import Host, parse_address
from llama_orch.contracts.meta import Readiness
from llama_orch.contracts.nodes import NodeList, NodeStanding, NodeView
from llama_orch.service.machine_id import FILE, MACHINE_ID, known_id
from llama_orch.settings.tls import CERT_FILE
from orchctl.check.queries import NOT_QUERIED, fetch, query
from orchctl.client import QueenClient
from orchctl.destination import usable_socket_url
from orchctl.errors import CommandError
from orchctl.locations import POOL_MANAGERD_SOCKET

BIND_VARIABLE, NODE_ID_VARIABLE = "POOL_MANAGERD_BIND_ADDR", "POOL_MANAGERD_NODE_ID"
DEFAULT_HOST = Host("127.0.0.1", 9200)
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- maps the address listened on to one to connect to
ID_FILES = (MACHINE_ID, Path("/var/lib/pool-managerd") / FILE)
"""Where pool-managerd reads the machine id; the second exists only without the first, and is not readable by all."""

Nodes = NodeList | CommandError


@dataclass(frozen=True)
class LocalNode:
    """The pool-managerd of this machine, queried at `url`.

    `expected` if the environment says that this machine is a node; `node_id` is its name there. Queens know the machine
    as `machine_id`.
    """

    url: str
    expected: bool
    ready: Readiness | CommandError
    node_id: str | None = None
    standing: NodeStanding | CommandError = NOT_QUERIED
    machine_id: str | None = None


def nodes_of_machine(nodes: Nodes, machine_id: str | None) -> Sequence[NodeView]:
    """Return the nodes with this machine id. More than one is possible if a machine runs a whole cluster for a test."""
    if machine_id is None or isinstance(nodes, CommandError):
        return ()
    return [node for node in nodes.nodes if node.machine_id == machine_id]


async def find_local_node(
    queen: QueenClient, environ: Mapping[str, str], nodes: Callable[[], Awaitable[Nodes]]
) -> LocalNode:
    """Query pool-managerd at the address in `environ`, or else at its Unix socket or default address.

    If it does not answer and no address is set, try the addresses at which the queen's `nodes` have this machine.
    """
    bind, machine_id = environ.get(BIND_VARIABLE), known_id(*ID_FILES)
    expected = bool(bind or environ.get(NODE_ID_VARIABLE))
    socket = None if bind else usable_socket_url(POOL_MANAGERD_SOCKET)
    url = socket or local_url(bind, secure=bool(environ.get(CERT_FILE)))
    ready = await _query_ready(queen, url)
    if isinstance(ready, CommandError) and not bind:
        for node in nodes_of_machine(await nodes(), machine_id):
            if not isinstance(result := await _query_ready(queen, node.address), CommandError):
                url, ready = node.address, result
    local = LocalNode(url, expected, ready, environ.get(NODE_ID_VARIABLE) or None, machine_id=machine_id)
    if isinstance(ready, CommandError):
        return local
    return replace(local, standing=await query(partial(fetch, replace(queen, url=url), "/v2/node", NodeStanding)))


async def _query_ready(queen: QueenClient, url: str) -> Readiness | CommandError:
    return await query(partial(fetch, replace(queen, url=url), "/ready", Readiness))


def local_url(bind: str | None, *, secure: bool = False) -> str:
    """Return the URL at which a pool-managerd that listens on `bind` answers on its own machine."""
    try:
        host = parse_address(bind) if bind else DEFAULT_HOST
    except ValueError:
        host = DEFAULT_HOST
    return f"{'https' if secure else 'http'}://{Host(LOOPBACK.get(host.host, host.host), host.port)}"
