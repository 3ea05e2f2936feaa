"""A model name selects a catalog model, else a pool, else a served model; other names are a 404 with the known ones."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.catalog import CatalogModel, ModelState
from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import PlacementWish, TaskRequest
from queen_rbee.catalog.names import NameIndex
from queen_rbee.pools.candidates import Candidate, demand_of
from queen_rbee.pools.model_lookup import ModelTarget, find_listing, find_target, list_models, resolve_request
from queen_rbee.pools.replica_index import ReplicaIndex

CREATED = datetime(2026, 1, 2, tzinfo=UTC)


class FakeCatalog:
    """A catalog of `(id, model_ref)` pairs; ids in capitals are retired."""

    def __init__(self, *entries: tuple[str, str]) -> None:
        self._models = {
            name: CatalogModel(
                id=name,
                model_ref=ref,
                state=ModelState.RETIRED if name.isupper() else ModelState.ACTIVE,
                created_at=CREATED,
                updated_at=CREATED,
            )
            for name, ref in entries
        }

    def models(self) -> Sequence[CatalogModel]:
        return list(self._models.values())

    def model(self, model_id: str) -> CatalogModel | None:
        return self._models.get(model_id)

    def model_ref_for(self, name: str) -> str:
        return NameIndex(self._models).model_ref_for(name)


def pool(pool_id: str, *models: str, ready: bool = True, ctx_max: int | None = 512) -> Candidate:
    state = PoolState.READY if ready else PoolState.STARTING
    return Candidate(pool_id, "r0", "http://x", state, ready, False, 2, 0, "llamacpp", models=models, ctx_max=ctx_max)


def pools(*known: Candidate) -> ReplicaIndex:
    return ReplicaIndex(known)


POOLS = pools(pool("small", "hf:org/repo/tiny.gguf"), pool("large", "file:/models/big.gguf"))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gpt", ModelTarget(model_ref="hf:org/repo/tiny.gguf")),
        ("small", ModelTarget(pool_id="small")),
        ("hf:org/repo/tiny.gguf", ModelTarget(model_ref="hf:org/repo/tiny.gguf")),
        ("tiny", ModelTarget(model_ref="tiny")),
        ("", ModelTarget()),
        (None, ModelTarget()),
        ("default", ModelTarget()),
    ],
)
def test_name_selects_model_pool_or_any(name: str | None, target: ModelTarget):
    assert find_target(name, FakeCatalog(("gpt", "hf:org/repo/tiny.gguf")), POOLS, True) == target


def test_catalog_id_wins_over_pool_and_pool_over_model():
    known = pools(pool("same", "other.gguf"), pool("other", "same.gguf"))
    assert find_target("same", FakeCatalog(("same", "x")), known, True) == ModelTarget(model_ref="x")
    assert find_target("same", FakeCatalog(), known, True) == ModelTarget(pool_id="same")
    assert find_target("default", FakeCatalog(), pools(pool("default")), True) == ModelTarget(pool_id="default")


def test_unknown_name_is_refused_with_known_names():
    with pytest.raises(ApiError) as refusal:
        find_target("gpt-9", FakeCatalog(("mine", "tiny.gguf")), POOLS, True)
    assert refusal.value.status == 404
    assert [item.field for item in refusal.value.body.fields or ()] == ["model"]
    for known in ("gpt-9", "mine", "small", "hf:org/repo/tiny.gguf"):
        assert known in refusal.value.body.message


def test_long_list_of_names_is_truncated():
    with pytest.raises(ApiError, match="and 81 more"):
        find_target("gpt-9", FakeCatalog(), pools(*(pool(f"p{number}", "m.gguf") for number in range(100))), True)


def test_retired_model_is_refused():
    with pytest.raises(ApiError, match="retired") as refusal:
        find_target("OLD", FakeCatalog(("OLD", "tiny.gguf")), POOLS, True)
    assert refusal.value.status == 404


def test_unknown_name_before_sync_is_503():
    with pytest.raises(ApiError) as refusal:
        find_target("late", FakeCatalog(), POOLS, False)
    assert (refusal.value.status, refusal.value.body.code) == (503, ErrorCode.POOL_UNREADY)
    assert ("retry-after", "1") in refusal.value.headers
    assert refusal.value.body.retriable


def test_name_is_passed_on_while_no_pool_is_known():
    assert find_target("tiny", FakeCatalog(), pools(), True) == ModelTarget(model_ref="tiny")


def test_every_name_is_listed_once():
    known = pools(*POOLS.all(), pool("twin", "hf:org/repo/tiny.gguf"), pool("coming", "file:/new.gguf", ready=False))
    found = {item.name: item for item in list_models(FakeCatalog(("gpt", "tiny"), ("OLD", "big")), known)}
    assert list(found) == ["gpt", "large", "small", "twin", "big", "hf:org/repo/tiny.gguf"]
    assert found["gpt"].created == int(CREATED.timestamp())
    assert found["gpt"].pools == ("small", "twin")
    assert found["gpt"].ctx_max == 512


def test_unserved_active_model_is_listed_as_not_ready():
    (found,) = list_models(FakeCatalog(("gpt", "elsewhere.gguf")), pools(pool("coming", "file:/new.gguf", ready=False)))
    assert (found.name, found.ready, found.pools) == ("gpt", False, ())


def test_listing_is_found_by_any_name():
    assert find_listing("tiny", FakeCatalog(), POOLS, True).pools == ("small",)
    assert find_listing("large", FakeCatalog(), POOLS, True).pools == ("large",)
    assert find_listing("gpt", FakeCatalog(("gpt", "big")), POOLS, True).pools == ("large",)
    with pytest.raises(ApiError):
        find_listing("none", FakeCatalog(), POOLS, True)


NAMES = st.sampled_from(["a", "b", "c", "default"])


@given(
    st.lists(st.tuples(NAMES, NAMES), max_size=3, unique_by=lambda entry: entry[0]),
    st.lists(st.tuples(NAMES, NAMES, st.booleans()), min_size=1, max_size=3),
)
def test_listed_name_can_be_requested(entries: list[tuple[str, str]], served: list[tuple[str, str, bool]]):
    catalog, candidates = (
        FakeCatalog(*entries),
        pools(*(pool(name, model, ready=ready) for name, model, ready in served)),
    )
    found = [item.name for item in list_models(catalog, candidates)]
    assert len(found) == len(set(found))
    for name in found:
        assert find_target(name, catalog, candidates, True) != ModelTarget()


def placed(known: ReplicaIndex, catalog: FakeCatalog, **fields: object) -> list[str]:
    """Return the pools on which a /v2 task with these fields can run."""
    request = resolve_request(TaskRequest.model_validate({"prompt": "x", **fields}), catalog, known)
    supported = ReplicaIndex([replace(candidate, endpoints=frozenset({"completion"})) for candidate in known.all()])
    return sorted({candidate.pool_id for candidate in supported.suitable(demand_of(request))})


def test_task_can_request_every_listed_name():
    known = pools(*POOLS.all(), pool("twin", "hf:org/repo/tiny.gguf"))
    catalog = FakeCatalog(("gpt", "tiny"))
    for item in list_models(catalog, known):
        assert placed(known, catalog, model_ref=item.name) == list(item.pools), item.name


def test_pool_id_as_model_keeps_other_placement_fields():
    request = TaskRequest.model_validate({"prompt": "x", "model_ref": "small", "placement": {"avoid_pools": ["large"]}})
    placement = resolve_request(request, FakeCatalog(), POOLS).placement
    assert placement == PlacementWish(mode="pin", pin_pool_id="small", avoid_pools=("large",))


def test_pool_id_as_model_does_not_move_a_pinned_task():
    assert placed(POOLS, FakeCatalog(), model_ref="small", placement={"mode": "pin", "pin_pool_id": "large"}) == []
    assert placed(POOLS, FakeCatalog(), model_ref="small", placement={"mode": "pin", "pin_pool_id": "small"}) == [
        "small"
    ]


def test_model_wins_over_pool_of_same_name_for_tasks():
    known = pools(pool("same", "other.gguf"), pool("other", "same.gguf"))
    assert placed(known, FakeCatalog(), model_ref="same") == ["other"]
