"""What `orchctl check` finds on its own machine: which machine it is, and the pool-managerd that runs there."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from llama_orch.addresses import Host, parse_address
from llama_orch.contracts.meta import Readiness
from llama_orch.contracts.nodes import NodeList, NodeStanding, NodeView
from llama_orch.service.machine_id import FILE, MACHINE_ID, known_id
from llama_orch.settings.tls import CERT_FILE
from orchctl.check.queries import NOT_ASKED, answer, limited
from orchctl.client import QueenClient
from orchctl.destination import NODE_SOCKET, usable
from orchctl.errors import CommandError

BIND_VARIABLE, NODE_ID_VARIABLE = "POOL_MANAGERD_BIND_ADDR", "POOL_MANAGERD_NODE_ID"
NODE_HOST = Host("127.0.0.1", 9200)
UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- what is listened on, and where that answers here
ID_FILES = (MACHINE_ID, Path("/var/lib/pool-managerd") / FILE)
"""Where pool-managerd has the machine's id from; the second only where there is no first, and not readable for all."""

Nodes = NodeList | CommandError


@dataclass(frozen=True)
class LocalNode:
    """The pool-managerd of this machine, at `url` if anywhere. `expected`: this environment says that it is a node,
    which it calls `node_id`. `machine_id` is what queens know the machine by."""

    url: str
    expected: bool
    ready: Readiness | CommandError
    node_id: str | None = None
    standing: NodeStanding | CommandError = NOT_ASKED
    machine_id: str | None = None


def own_nodes(nodes: Nodes, machine_id: str | None) -> Sequence[NodeView]:
    """The nodes of the queen that are this machine; several only where somebody tries a cluster on one machine."""
    if machine_id is None or isinstance(nodes, CommandError):
        return ()
    return [node for node in nodes.nodes if node.machine_id == machine_id]


async def local(queen: QueenClient, environ: Mapping[str, str], nodes: Callable[[], Awaitable[Nodes]]) -> LocalNode:
    """The pool-managerd where it listens according to `environ`, or on its Unix socket, or by default; or else where
    `nodes`, those of the queen, have this machine."""
    bind, machine_id = environ.get(BIND_VARIABLE), known_id(*ID_FILES)
    expected = bool(bind or environ.get(NODE_ID_VARIABLE))
    socket = None if bind else usable(NODE_SOCKET)
    url = socket or local_url(bind, secure=bool(environ.get(CERT_FILE)))
    ready = await _ready(queen, url)
    if isinstance(ready, CommandError) and not bind:
        for node in own_nodes(await nodes(), machine_id):
            if not isinstance(there := await _ready(queen, node.address), CommandError):
                url, ready = node.address, there
    found = LocalNode(url, expected, ready, environ.get(NODE_ID_VARIABLE) or None, machine_id=machine_id)
    if isinstance(ready, CommandError):
        return found
    return replace(found, standing=await limited(partial(answer, replace(queen, url=url), "/v2/node", NodeStanding)))


async def _ready(queen: QueenClient, url: str) -> Readiness | CommandError:
    return await limited(partial(answer, replace(queen, url=url), "/ready", Readiness))


def local_url(bind: str | None, *, secure: bool = False) -> str:
    """Where a pool-managerd that listens on `bind` answers on its own machine."""
    try:
        found = parse_address(bind) if bind else NODE_HOST
    except ValueError:
        found = NODE_HOST
    return f"{'https' if secure else 'http'}://{Host(UNSPECIFIED.get(found.host, found.host), found.port)}"
