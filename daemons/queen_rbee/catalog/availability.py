"""Which models are where: GET /v2/catalog/availability, from what is known of pools. Pure."""

from collections import Counter
from collections.abc import Iterable

from llama_orch.contracts.catalog import Availability, NodeModels
from llama_orch.contracts.nodes import NodeStatus, NodeView
from llama_orch.contracts.pools import PoolStatus
from llama_orch.engines.wire.model_names import public_name

LOCAL = "local"
"""The one node of HOME_PROFILE."""


def local_node(pools: Iterable[PoolStatus], address: str) -> NodeModels:
    """This machine as a node: all its pools, and the models that those of them which are ready serve."""
    known = list(pools)
    models = {public_name(model) for pool in known if pool.ready for model in pool.models_available}
    return NodeModels(
        node_id=LOCAL,
        address=address,
        online=True,
        models=sorted(models),
        pools=sorted(pool.pool_id for pool in known),
    )


def models_of(node: NodeView) -> NodeModels:
    """What a node of CLOUD_PROFILE has."""
    return NodeModels(
        node_id=node.node_id,
        address=node.address,
        online=node.status in (NodeStatus.ONLINE, NodeStatus.DRAINING),
        models=sorted({public_name(model) for pool in node.pools if pool.ready for model in pool.models_available}),
        pools=sorted(pool.pool_id for pool in node.pools),
    )


def availability(nodes: Iterable[NodeModels]) -> Availability:
    """What all nodes have together; only models of nodes that are online count."""
    known = {node.node_id: node for node in nodes}
    copies = Counter(model for node in known.values() if node.online for model in set(node.models))
    single = sum(count == 1 for count in copies.values())
    return Availability(
        nodes=known,
        total_models=len(copies),
        replicated_models=len(copies) - single,
        single_node_models=single,
    )
