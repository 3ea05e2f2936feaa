"""`model` means a catalog's id, else a pool, else what pools serve; anything else is a 404 that says what there is."""

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
from queen_rbee.catalog import names
from queen_rbee.pools.candidates import Candidate, demand_of
from queen_rbee.pools.directory import Directory
from queen_rbee.pools.naming import Named, named, offer, offers, resolved

CREATED = datetime(2026, 1, 2, tzinfo=UTC)


class Shelf:
    """A catalog of `(id, model_ref)`; ids in capitals are retired."""

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
        return names.model_ref_for(name, self._models, names.by_ref(self._models))


def pool(pool_id: str, *models: str, ready: bool = True, ctx_max: int | None = 512) -> Candidate:
    state = PoolState.READY if ready else PoolState.STARTING
    return Candidate(pool_id, "r0", "http://x", state, ready, False, 2, 0, "llamacpp", models=models, ctx_max=ctx_max)


def pools(*known: Candidate) -> Directory:
    return Directory(known)


POOLS = pools(pool("small", "hf:org/repo/tiny.gguf"), pool("large", "file:/models/big.gguf"))


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("gpt", Named(model_ref="hf:org/repo/tiny.gguf")),
        ("small", Named(pool_id="small")),
        ("hf:org/repo/tiny.gguf", Named(model_ref="hf:org/repo/tiny.gguf")),
        ("tiny", Named(model_ref="tiny")),
        ("", Named()),
        (None, Named()),
        ("default", Named()),
    ],
)
def test_what_a_name_means(name: str | None, meaning: Named):
    assert named(name, Shelf(("gpt", "hf:org/repo/tiny.gguf")), POOLS, True) == meaning


def test_the_catalog_goes_before_a_pool_and_a_pool_before_a_model_of_that_name():
    known = pools(pool("same", "other.gguf"), pool("other", "same.gguf"))
    assert named("same", Shelf(("same", "x")), known, True) == Named(model_ref="x")
    assert named("same", Shelf(), known, True) == Named(pool_id="same")
    assert named("default", Shelf(), pools(pool("default")), True) == Named(pool_id="default")


def test_a_name_without_meaning_is_refused_with_what_there_is():
    with pytest.raises(ApiError) as refusal:
        named("gpt-9", Shelf(("mine", "tiny.gguf")), POOLS, True)
    assert refusal.value.status == 404
    assert [item.field for item in refusal.value.body.fields or ()] == ["model"]
    for known in ("gpt-9", "mine", "small", "hf:org/repo/tiny.gguf"):
        assert known in refusal.value.body.message


def test_a_long_list_is_cut():
    with pytest.raises(ApiError, match="and 81 more"):
        named("gpt-9", Shelf(), pools(*(pool(f"p{number}", "m.gguf") for number in range(100))), True)


def test_a_retired_model_is_refused_as_the_catalog_has_it():
    with pytest.raises(ApiError, match="retired") as refusal:
        named("OLD", Shelf(("OLD", "tiny.gguf")), POOLS, True)
    assert refusal.value.status == 404


def test_while_pools_are_being_asked_nothing_is_said_not_to_exist():
    with pytest.raises(ApiError) as refusal:
        named("late", Shelf(), POOLS, False)
    assert (refusal.value.status, refusal.value.body.code) == (503, ErrorCode.POOL_UNREADY)
    assert ("retry-after", "1") in refusal.value.headers
    assert refusal.value.body.retriable


def test_without_a_pool_it_is_admission_that_says_so():
    assert named("tiny", Shelf(), pools(), True) == Named(model_ref="tiny")


def test_everything_that_can_be_asked_for_is_offered_once():
    known = pools(*POOLS.all(), pool("twin", "hf:org/repo/tiny.gguf"), pool("coming", "file:/new.gguf", ready=False))
    found = {item.name: item for item in offers(Shelf(("gpt", "tiny"), ("OLD", "big")), known)}
    assert list(found) == ["gpt", "large", "small", "twin", "big", "hf:org/repo/tiny.gguf"]
    assert found["gpt"].created == int(CREATED.timestamp())
    assert found["gpt"].pools == ("small", "twin")
    assert found["gpt"].ctx_max == 512


def test_an_active_model_that_nobody_serves_now_is_offered_as_not_ready():
    (found,) = offers(Shelf(("gpt", "elsewhere.gguf")), pools(pool("coming", "file:/new.gguf", ready=False)))
    assert (found.name, found.ready, found.pools) == ("gpt", False, ())


def test_one_offer_is_found_by_any_name_that_can_be_asked_for():
    assert offer("tiny", Shelf(), POOLS, True).pools == ("small",)
    assert offer("large", Shelf(), POOLS, True).pools == ("large",)
    assert offer("gpt", Shelf(("gpt", "big")), POOLS, True).pools == ("large",)
    with pytest.raises(ApiError):
        offer("none", Shelf(), POOLS, True)


NAMES = st.sampled_from(["a", "b", "c", "default"])


@given(
    st.lists(st.tuples(NAMES, NAMES), max_size=3, unique_by=lambda entry: entry[0]),
    st.lists(st.tuples(NAMES, NAMES, st.booleans()), min_size=1, max_size=3),
)
def test_whatever_is_offered_can_be_asked_for(entries: list[tuple[str, str]], those: list[tuple[str, str, bool]]):
    shelf, candidates = Shelf(*entries), pools(*(pool(name, model, ready=ready) for name, model, ready in those))
    found = [item.name for item in offers(shelf, candidates)]
    assert len(found) == len(set(found))
    for name in found:
        assert named(name, shelf, candidates, True) != Named()


def placed(known: Directory, shelf: Shelf, **wanted: object) -> list[str]:
    """The pools that a task of /v2 can go to."""
    request = resolved(TaskRequest.model_validate({"prompt": "x", **wanted}), shelf, known)
    spoken = Directory([replace(candidate, endpoints=frozenset({"completion"})) for candidate in known.all()])
    return sorted({candidate.pool_id for candidate in spoken.suitable(demand_of(request))})


def test_task_may_ask_for_every_name_that_is_listed():
    known = pools(*POOLS.all(), pool("twin", "hf:org/repo/tiny.gguf"))
    shelf = Shelf(("gpt", "tiny"))
    for item in offers(shelf, known):
        assert placed(known, shelf, model_ref=item.name) == list(item.pools), item.name


def test_pool_id_as_model_keeps_the_rest_of_the_placement():
    request = TaskRequest.model_validate({"prompt": "x", "model_ref": "small", "placement": {"avoid_pools": ["large"]}})
    wish = resolved(request, Shelf(), POOLS).placement
    assert wish == PlacementWish(mode="pin", pin_pool_id="small", avoid_pools=("large",))


def test_pool_id_as_model_does_not_move_a_pinned_task():
    assert placed(POOLS, Shelf(), model_ref="small", placement={"mode": "pin", "pin_pool_id": "large"}) == []
    assert placed(POOLS, Shelf(), model_ref="small", placement={"mode": "pin", "pin_pool_id": "small"}) == ["small"]


def test_name_of_model_and_pool_is_the_model_for_tasks():
    known = pools(pool("same", "other.gguf"), pool("other", "same.gguf"))
    assert placed(known, Shelf(), model_ref="same") == ["other"]
