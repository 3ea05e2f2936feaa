"""A reload touches exactly the pools whose configuration has changed."""

from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.spec.pool_spec import Group, Pool
from engine_provisioner.supervise.changes import changes, same_engine
from tests.unit.engine_provisioner.pools import pool

SPECS = st.builds(
    lambda ctx, group, mode: pool(ctx=ctx, group=group).in_groups({"one": Group(mode=mode)}),
    st.sampled_from([512, 4096]),
    st.sampled_from([None, "one"]),
    st.sampled_from(["exclusive", "together"]),
)
POOLS = st.dictionaries(st.sampled_from("abcdef"), SPECS).map(
    lambda specs: {pool_id: _named(spec, pool_id) for pool_id, spec in specs.items()}
)


def _named(spec: Pool, pool_id: str) -> Pool:
    return spec.model_copy(update={"id": pool_id})


@given(POOLS, POOLS)
def test_each_pool_is_in_one_group(old: dict[str, Pool], new: dict[str, Pool]) -> None:
    found = changes(old, list(new.values()))
    assert sorted(found.kept + found.changed + found.added + found.removed) == sorted({*old, *new})
    assert set(found.removed) == old.keys() - new.keys()
    assert set(found.added) == new.keys() - old.keys()
    assert all(old[each] == new[each] for each in found.kept)
    assert all(old[each] != new[each] for each in found.changed)


@given(POOLS)
def test_same_files_change_nothing(pools: dict[str, Pool]) -> None:
    assert changes(pools, list(pools.values())).kept == tuple(pools)


@given(POOLS)
def test_first_start_adds_all_pools(pools: dict[str, Pool]) -> None:
    assert changes({}, list(pools.values())).added == tuple(pools)


def test_default_written_out_changes_nothing() -> None:
    assert changes({"default": pool()}, [pool(slots=1)]).kept == ("default",)


def test_mode_of_the_group_is_part_of_the_pool() -> None:
    together, exclusive = (pool(group="one").in_groups({"one": Group(mode=mode)}) for mode in ("together", "exclusive"))
    assert changes({"default": together}, [exclusive]).changed == ("default",)


def test_engine_is_kept_by_changes_that_do_not_concern_it() -> None:
    assert same_engine(pool(), pool(keep_alive="1h", pinned=True, preload=False, timeouts={"wall_ms": 5000}))
    assert not same_engine(pool(), pool(slots=2))
    assert not same_engine(pool(), pool(model="file:/srv/other.gguf"))
