"""Nodes as documents in the store, so that the queen knows its fleet after a restart. Pure functions."""

from datetime import datetime

from pydantic import Field, ValidationError

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.nodes import NodeRegistration, PoolSnapshot
from queen_rbee.fleet.nodes import Node
from queen_rbee.store.protocol import Document


class SavedNode(Outbound):
    """The JSON body of a node's document."""

    registration: NodeRegistration
    peer: str
    registered_at: datetime
    heard_at: datetime | None = None
    draining: bool = False
    offline: bool = False
    asleep: bool = False
    pools: list[PoolSnapshot] = Field(default_factory=list)


def node_document(node: Node) -> Document:
    saved = SavedNode(
        registration=node.registration,
        peer=node.peer,
        registered_at=node.registered_wall,
        heard_at=node.heard_wall,
        draining=node.draining,
        offline=node.offline,
        asleep=node.asleep,
        pools=list(node.pools),
    )
    return Document(node.node_id, saved.model_dump_json(exclude_none=True))


def read_node(document: Document, heard_at: float) -> Node | None:
    """Return the node as last heard at `heard_at`; None if another release wrote a body this one cannot read."""
    try:
        saved = SavedNode.model_validate_json(document.body)
    except ValidationError:
        return None
    return Node(
        registration=saved.registration,
        peer=saved.peer,
        registered_wall=saved.registered_at,
        heard_at=heard_at,
        heard_wall=saved.heard_at,
        pools=tuple(saved.pools),
        draining=saved.draining,
        offline=saved.offline,
        asleep=saved.asleep,
    )
