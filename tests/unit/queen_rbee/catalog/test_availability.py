"""Availability counts only ready models of online nodes, each once per node."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llama_orch.contracts.catalog import Availability, NodeModels
from llama_orch.contracts.pools import PoolState, PoolStatus
from queen_rbee.catalog.availability import availability, local_node


def pool(pool_id: str, *models: str, ready: bool = True) -> PoolStatus:
    state = PoolState.READY if ready else PoolState.STARTING
    return PoolStatus(
        pool_id=pool_id,
        state=state,
        live=True,
        ready=ready,
        draining=False,
        engine="llamacpp",
        models_available=list(models),
    )


def node(node_id: str, *models: str, online: bool = True) -> NodeModels:
    return NodeModels(node_id=node_id, address="http://x:1", online=online, models=list(models), pools=[])


def totals(*nodes: NodeModels) -> tuple[int, int, int]:
    found = availability(nodes)
    return found.total_models, found.replicated_models, found.single_node_models


def test_local_node_has_all_pools_and_ready_models():
    found = local_node([pool("b", "y", "x"), pool("a", "x"), pool("c", "z", ready=False)], "127.0.0.1:8080")
    assert found == NodeModels(
        node_id="local", address="127.0.0.1:8080", online=True, models=["x", "y"], pools=["a", "b", "c"]
    )


def test_local_node_without_pools_is_listed():
    assert availability([local_node([], "x")]).nodes["local"].models == []


def test_model_on_two_nodes_is_replicated():
    assert totals(node("a", "x", "y"), node("b", "x")) == (2, 1, 1)


def test_models_of_offline_node_do_not_count():
    assert totals(node("a", "x"), node("b", "x", "y", online=False)) == (1, 0, 1)
    assert set(availability([node("b", "y", online=False)]).nodes) == {"b"}


def test_model_listed_twice_by_node_counts_once():
    assert totals(node("a", "x", "x")) == (1, 0, 1)


names = st.sampled_from("uvwxyz")
nodes = st.lists(
    st.builds(
        NodeModels,
        node_id=st.sampled_from(["a", "b", "c", "d"]),
        address=st.just("x"),
        online=st.booleans(),
        models=st.lists(names, max_size=6),
        pools=st.just([]),
    ),
    max_size=4,
    unique_by=lambda found: found.node_id,
)


@settings(deadline=None)
@given(nodes)
def test_totals_match_nodes(found: list[NodeModels]):
    result: Availability = availability(found)
    where = {model: [each.node_id for each in found if each.online and model in each.models] for model in "uvwxyz"}
    assert result.total_models == sum(bool(each) for each in where.values())
    assert result.replicated_models == sum(len(each) > 1 for each in where.values())
    assert result.single_node_models == sum(len(each) == 1 for each in where.values())
    assert result.nodes == {each.node_id: each for each in found}
