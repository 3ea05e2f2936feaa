"""The choice of models to evict."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from engine_provisioner.cache.eviction import Candidate, choose, freed_by

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def model(key: str, day: int = 0, size: int = 10, *, protected: bool = False, blob: str | None = None) -> Candidate:
    return Candidate(key, BEGIN + timedelta(days=day), protected, {blob or key: size})


def test_least_recently_used_goes_first() -> None:
    models = [model("new", 3), model("old", 1), model("middle", 2)]
    assert choose(models, 10) == ("old",)
    assert choose(models, 11) == ("old", "middle")


def test_pinned_and_used_models_are_never_chosen() -> None:
    assert choose([model("pinned", 1, protected=True), model("other", 2)], 10) == ("other",)
    assert choose([model("pinned", 1, protected=True)], 1) is None


def test_models_too_small_to_matter_stay() -> None:
    assert choose([model("small", 1, 1), model("large", 2, 100)], 100) == ("large",)


def test_shared_file_is_freed_with_its_last_model() -> None:
    models = [model("a", 1, blob="both"), model("b", 2, blob="both"), model("c", 3)]
    assert choose(models, 10) == ("a", "b")
    assert freed_by(["a"], models) == 0


def test_nothing_is_chosen_if_nothing_is_needed() -> None:
    assert choose([model("a")], 0) == choose([], -5) == ()


MODELS = st.lists(
    st.builds(
        Candidate,
        key=st.uuids().map(str),
        used_at=st.integers(0, 5).map(lambda day: BEGIN + timedelta(days=day)),
        protected=st.booleans(),
        blobs=st.sets(st.integers(0, 6), max_size=3).map(lambda blobs: {blob: 1 << blob for blob in blobs}),
    ),
    max_size=7,
    unique_by=lambda model: model.key,
)


@given(MODELS, st.integers(0, 200))
def test_choice_frees_enough_and_no_more(models: Sequence[Candidate], needed: int) -> None:
    chosen = choose(models, needed)
    removable = [each.key for each in models if not each.protected]
    if chosen is None:
        assert freed_by(removable, models) < needed
        return
    assert set(chosen) <= set(removable)
    assert freed_by(chosen, models) >= needed
    for fewer in combinations(chosen, len(chosen) - 1) if chosen else ():
        assert freed_by(fewer, models) < needed
