"""The models on each node, for GET /v2/catalog/availability. Pure functions."""

from collections import Counter
from collections.abc import Iterable

from llama_orch.contracts.catalog import Availability, NodeModels
from llama_orch.contracts.nodes import NodeStatus, NodeView
from llama_orch.contracts.pools import PoolStatus
from llama_orch.engines.wire.model_names import public_name

LOCAL_NODE_ID = "local"
"""The id of the only node in HOME_PROFILE."""


def local_node(pools: Iterable[PoolStatus], address: str) -> NodeModels:
    """Return this machine as a node, with all its pools and the models of those that are ready."""
    known = list(pools)
    models = {public_name(model) for pool in known if pool.ready for model in pool.models_available}
    return NodeModels(
        node_id=LOCAL_NODE_ID,
        address=address,
        online=True,
        models=sorted(models),
        pools=sorted(pool.pool_id for pool in known),
    )


def models_of(node: NodeView) -> NodeModels:
    """Return the pools of a CLOUD_PROFILE node, and the models of those that are ready."""
    return NodeModels(
        node_id=node.node_id,
        address=node.address,
        online=node.status in (NodeStatus.ONLINE, NodeStatus.DRAINING),
        models=sorted({public_name(model) for pool in node.pools if pool.ready for model in pool.models_available}),
        pools=sorted(pool.pool_id for pool in node.pools),
    )


def availability(nodes: Iterable[NodeModels]) -> Availability:
    """Count the models of all nodes; those of offline nodes do not count."""
    known = {node.node_id: node for node in nodes}
    copies = Counter(model for node in known.values() if node.online for model in set(node.models))
    single = sum(count == 1 for count in copies.values())
    return Availability(
        nodes=known,
        total_models=len(copies),
        replicated_models=len(copies) - single,
        single_node_models=single,
    )
