"""The catalog: names mean what it says, what is not what its digest says is served to nobody, and the store agrees."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_orch.contracts.catalog import CatalogModel, ModelState, NewModel, Verification, VerificationState
from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.contracts.pools import PoolState, PoolStatus
from queen_rbee.catalog import verification as catalog_checks
from queen_rbee.catalog.catalog import Catalog
from queen_rbee.catalog.verification import Checks, Outcome
from queen_rbee.metrics import Metrics
from queen_rbee.store.protocol import Document, StoreFailure
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, build_queen, end_events, running_queen
from tests.unit.queen_rbee.scripted_engine import scripted_engine

RIGHT, WRONG = "sha256:" + "a" * 64, "sha256:" + "b" * 64
FULL = StoreFailure("the disk is full")
S = VerificationState


class Shelf:
    """A catalog, what it stands on, and what it has told the registry."""

    def __init__(self, store: MemoryStore | None = None, **options) -> None:
        self.store = store or MemoryStore()
        self.metrics = Metrics()
        self.pools: list[PoolStatus] = []
        self.withheld: frozenset[str] = frozenset()
        self.catalog = Catalog(self.store, lambda: self.pools, self.metrics, self.withhold, **options)

    def withhold(self, names: frozenset[str]) -> None:
        self.withheld = names

    async def restarted(self) -> "Shelf":
        """What the next queen knows."""
        after = Shelf(self.store.after_restart())
        await after.catalog.load()
        return after

    async def agrees(self) -> bool:
        """Whether a queen that starts now would know the same."""
        return (await self.restarted()).catalog.models() == self.catalog.models()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Checks run."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.catalog.run)
            yield
            nursery.cancel_scope.cancel()

    def state(self, model_id: str = "m") -> VerificationState:
        model = self.catalog.model(model_id)
        assert model is not None
        return model.verification.state

    async def until(self, state: VerificationState, model_id: str = "m") -> Verification:
        """The outcome, once it is `state`."""
        return await until(self.catalog, model_id, state)

    def serve(self, digest: str | None, name: str = "hf:org/repo/tiny.gguf") -> None:
        """A pool serves the model, and reports `digest` of it."""
        digests = {name: digest} if digest else {}
        plain = {"state": PoolState.READY, "live": True, "ready": True, "draining": False, "engine": "llamacpp"}
        self.pools = [PoolStatus(pool_id="p", models_available=[name], model_digests=digests, **plain)]

    def count(self, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value("catalog_verifications_total", labels)


async def until(catalog: Catalog, model_id: str, state: VerificationState) -> Verification:
    """The outcome of a check, once it is `state`."""
    with trio.fail_after(TIMEOUT_S):
        while not (found := catalog.model(model_id)) or found.verification.state is not state:  # noqa: ASYNC110
            await trio.sleep(0.001)  # files are hashed in threads, and a clock that jumps must be able to
    return found.verification


def new(model_id: str = "m", **fields) -> NewModel:
    return NewModel.model_validate({"id": model_id, "model_ref": "hf:org/repo/tiny.gguf", **fields})


async def known(shelf: Shelf, model_id: str = "m", **fields) -> CatalogModel:
    model, _is_new = await shelf.catalog.add(new(model_id, **fields))
    return model


def refusal(ask: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask()
    return caught.value


async def test_a_model_is_there_when_it_was_added_and_after_a_restart():
    shelf = Shelf()
    model, is_new = await shelf.catalog.add(new(metadata={"licence": "MIT"}, cost_per_1k_tokens=0.5))
    assert is_new
    assert (model.state, model.verification.state) == (ModelState.ACTIVE, S.UNVERIFIED)
    assert shelf.catalog.models() == [model]
    assert await shelf.agrees()


async def test_the_same_again_is_the_same_model_and_another_of_its_id_is_refused():
    shelf = Shelf()
    model = await known(shelf)
    assert await shelf.catalog.add(new()) == (model, False)
    with pytest.raises(ApiError) as caught:
        await shelf.catalog.add(new(digest=RIGHT))
    assert (caught.value.status, caught.value.body.code) == (409, ErrorCode.INVALID_PARAMS)
    assert "is already taken by another model" in caught.value.body.message
    assert shelf.catalog.models() == [model]


async def test_a_full_catalog_refuses_and_says_so():
    shelf = Shelf(limit=1)
    await known(shelf)
    with pytest.raises(ApiError, match="the catalog is full"):
        await known(shelf, "other")
    assert await shelf.catalog.add(new()) == (shelf.catalog.model("m"), False)


DEEDS: dict[str, Callable[[Catalog, CatalogModel], Awaitable[object]]] = {
    "add": lambda catalog, _model: catalog.add(new()),
    "remove": lambda catalog, model: catalog.remove(model.id),
    "retire": lambda catalog, model: catalog.set_state(model, ModelState.RETIRED),
    "verify": lambda catalog, model: catalog.verify(model),
}


@pytest.mark.parametrize("deed", DEEDS)
async def test_what_cannot_be_stored_leaves_all_as_it_was(deed: str):
    shelf = Shelf()
    model = await known(shelf, "other", digest=RIGHT)
    shelf.store.failure = FULL
    with pytest.raises(StoreFailure):
        await DEEDS[deed](shelf.catalog, model)
    shelf.store.failure = None
    assert shelf.catalog.models() == [model]
    assert await shelf.agrees()


async def test_a_removed_model_is_gone_and_its_id_free():
    shelf = Shelf()
    await known(shelf)
    assert await shelf.catalog.remove("m")
    assert shelf.catalog.models() == []
    assert await shelf.agrees()
    assert not await shelf.catalog.remove("m")
    assert (await known(shelf, digest=RIGHT)).digest == RIGHT


async def test_a_model_in_the_store_that_is_not_understood_is_left_out_and_named(caplog: pytest.LogCaptureFixture):
    shelf = Shelf()
    model = await known(shelf)
    shelf.store.put_later("model", Document("something", "{}"))
    assert (await shelf.restarted()).catalog.models() == [model]
    assert "model something in the store is not understood" in caplog.text


async def test_what_state_a_model_is_in_is_a_metric_for_as_long_as_it_is_there():
    shelf = Shelf()

    def shown(state: str) -> float | None:
        return shelf.metrics.registry.get_sample_value("model_state", {"model_id": "m", "state": state})

    model = await known(shelf)
    assert (shown("Active"), shown("Retired")) == (1, 0)
    await shelf.catalog.set_state(model, ModelState.RETIRED)
    assert (shown("Active"), shown("Retired")) == (0, 1)
    await shelf.catalog.remove("m")
    assert (shown("Active"), shown("Retired")) == (None, None)


NAMES = ["m", "tiny", "TINY", "tiny.gguf", "hf:org/repo/tiny.gguf", "hf:other/copy/Tiny.gguf", "file:/srv/tiny.gguf"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_is_meant_by_its_id_and_by_every_name_that_pools_serve_it_as(name: str):
    shelf = Shelf()
    model = await known(shelf, cost_per_1k_tokens=2.0)
    assert shelf.catalog.resolve(name) == model
    assert shelf.catalog.model_ref_for(name) == (model.model_ref if name == "m" else name)
    assert shelf.catalog.price(name) == 2.0


async def test_a_name_that_the_catalog_does_not_know_stays_as_it_is():
    shelf = Shelf()
    await known(shelf)
    assert shelf.catalog.resolve("other") is None
    assert (shelf.catalog.model_ref_for("other"), shelf.catalog.price("other")) == ("other", 0.0)


async def test_what_a_task_without_a_model_costs_is_known_only_while_nothing_costs():
    shelf = Shelf()
    assert shelf.catalog.price(None) == 0.0
    await known(shelf, cost_per_1k_tokens=2.0)
    assert shelf.catalog.price(None) is None
    assert (await shelf.restarted()).catalog.price(None) is None
    await shelf.catalog.remove("m")
    assert shelf.catalog.price(None) == 0.0


@pytest.mark.parametrize("name", NAMES)
async def test_a_retired_model_is_asked_for_by_no_name_until_it_is_brought_back(name: str):
    shelf = Shelf()
    retired = await shelf.catalog.set_state(await known(shelf), ModelState.RETIRED)
    for catalog in (shelf.catalog, (await shelf.restarted()).catalog):
        refused = refusal(partial(catalog.model_ref_for, name))
        assert (refused.status, refused.body.message) == (404, "model_ref: the model m is retired")
        assert "POST /v2/catalog/models/m/state" in (refused.body.hint or "")
    await shelf.catalog.set_state(retired, ModelState.ACTIVE)
    shelf.catalog.model_ref_for(name)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_where_several_models_have_one_name_it_means_the_first_that_may_be_served(deeds: list[tuple[str, bool]]):
    async def play() -> None:
        shelf = Shelf()
        active: dict[str, bool] = {}
        for model_id, retire in deeds:
            model = await known(shelf, model_id)
            await shelf.catalog.set_state(model, ModelState.RETIRED if retire else ModelState.ACTIVE)
            active[model_id] = not retire
        meant = shelf.catalog.resolve("tiny")
        wanted = min((each for each in active if active[each]), default=min(active, default=None))
        assert (meant and meant.id) == wanted

    trio.run(play)


async def test_a_digest_that_is_given_is_checked(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    shelf, digest = Shelf(directories=[tmp_path]), f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    async with shelf.running():
        model = await known(shelf, model_ref=f"file:{path}", digest=digest)
        assert model.verification.state is S.PENDING
        found = await shelf.until(S.VERIFIED)
        assert (found.reason, found.actual, found.checked_at is not None) == (None, digest, True)
        assert shelf.count(result="verified", reason="file", engine="") == 1
        assert await shelf.agrees()


async def test_a_mismatch_is_refused_withheld_counted_and_reported_and_survives_a_restart(
    caplog: pytest.LogCaptureFixture,
):
    shelf = Shelf()
    shelf.serve(WRONG)
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        found = await shelf.until(S.MISMATCH)
    assert (found.actual, found.reason) == (WRONG, "pool p has another digest than the catalog")
    assert shelf.count(result="mismatch", reason="pool_report", engine="llamacpp") == 1
    assert any("model_mismatch" in str(vars(record)) for record in caplog.records)
    for each in (shelf, await shelf.restarted()):
        assert each.withheld == {"tiny"}
        refused = refusal(partial(each.catalog.model_ref_for, "m"))
        assert (refused.status, refused.body.code) == (409, ErrorCode.INVALID_PARAMS)
        assert WRONG not in refused.body.message
        assert "POST /v2/catalog/models/m/verify" in (refused.body.hint or "")
    assert await shelf.agrees()


async def test_a_mended_model_is_served_again_once_it_has_been_checked_and_not_before():
    shelf = Shelf()
    shelf.serve(WRONG)
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        await shelf.until(S.MISMATCH)
    model = shelf.catalog.model("m")
    assert model is not None
    shelf = await shelf.restarted()  # nothing is checked here yet
    await shelf.catalog.verify(model)
    assert shelf.state() is S.PENDING
    assert shelf.withheld == {"tiny"}
    assert refusal(lambda: shelf.catalog.model_ref_for("m")).status == 409
    shelf.serve(RIGHT)
    async with shelf.running():
        await shelf.until(S.VERIFIED)
    assert shelf.withheld == frozenset()
    shelf.catalog.model_ref_for("m")


async def test_deleting_a_mismatch_gives_its_name_free():
    shelf = Shelf()
    shelf.serve(WRONG)
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        await shelf.until(S.MISMATCH)
        await shelf.catalog.remove("m")
        assert shelf.withheld == frozenset()


async def test_a_wrong_digest_of_one_name_does_not_withhold_what_another_has_verified():
    shelf = Shelf()
    shelf.serve(WRONG)
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        await known(shelf, "right", digest=WRONG)
        await shelf.until(S.MISMATCH)
        await shelf.until(S.VERIFIED, "right")
        assert shelf.withheld == frozenset()
        assert shelf.catalog.resolve("tiny") == shelf.catalog.model("right")
        assert refusal(lambda: shelf.catalog.model_ref_for("m")).status == 409


async def test_a_check_that_a_restart_cut_short_begins_again():
    shelf = Shelf()
    await known(shelf, digest=RIGHT)  # nothing runs: as if it took long
    after = await shelf.restarted()
    assert after.state() is S.PENDING
    after.serve(RIGHT)
    async with after.running():
        await after.until(S.VERIFIED)
    assert await after.agrees()


@pytest.mark.parametrize(("digest", "outcome"), [(RIGHT, S.VERIFIED), (WRONG, S.MISMATCH)])
async def test_a_pool_that_comes_later_is_judged_when_it_is_there(
    digest: str, outcome: VerificationState, autojump_clock: trio.testing.MockClock
):
    shelf = Shelf()
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        await shelf.until(S.UNAVAILABLE)
        shelf.serve(digest)
        await shelf.until(outcome)
        assert shelf.withheld == ({"tiny"} if outcome is S.MISMATCH else frozenset())
        await trio.sleep(60)
        assert shelf.count(result=outcome.value, reason="pool_report", engine="llamacpp") == 1


async def test_a_verified_model_is_withheld_when_a_pool_comes_with_another_file(
    autojump_clock: trio.testing.MockClock,
):
    shelf = Shelf()
    shelf.serve(RIGHT)
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        await shelf.until(S.VERIFIED)
        shelf.serve(WRONG)
        await shelf.until(S.MISMATCH)
        assert shelf.withheld == {"tiny"}


async def test_a_model_without_a_digest_is_not_checked_and_says_so_when_asked():
    shelf = Shelf()
    shelf.serve(WRONG)
    async with shelf.running():
        model = await known(shelf)
        await shelf.catalog.verify(model)
        found = await shelf.until(S.UNVERIFIED)
        assert "no digest was given" in (found.reason or "")
        shelf.catalog.model_ref_for("m")


class HeldChecks:
    """Checks that take until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: VerificationState = S.VERIFIED) -> None:
        self.begun: list[str] = []
        self.most = self.running = 0
        self.go = trio.Event()
        self.outcome = outcome
        monkeypatch.setattr(catalog_checks, "check", self.check)

    async def check(self, model: CatalogModel, _pools: object, _directories: object) -> Outcome:
        self.begun.append(model.id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        return Outcome(self.outcome, "file", None, model.digest)


async def test_checks_go_one_after_the_other_and_each_model_has_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    shelf, held = Shelf(), HeldChecks(monkeypatch)
    async with shelf.running():
        for model_id in "abc":
            model = await known(shelf, model_id, digest=RIGHT)
            await shelf.catalog.verify(model)
        await trio.testing.wait_all_tasks_blocked()
        held.go.set()
        for model_id in "abc":
            await shelf.until(S.VERIFIED, model_id)
        assert (sorted(held.begun), held.most) == (["a", "b", "c"], 1)


async def test_a_model_that_is_deleted_while_it_is_checked_stays_deleted(monkeypatch: pytest.MonkeyPatch):
    shelf, held = Shelf(), HeldChecks(monkeypatch)
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        await trio.testing.wait_all_tasks_blocked()
        held.go.set()
        await shelf.catalog.remove("m")
        await trio.testing.wait_all_tasks_blocked()
        assert shelf.catalog.models() == []
        assert shelf.store.documents["model"] == {}


@asynccontextmanager
async def checking(*models: CatalogModel) -> AsyncIterator[tuple[Checks, dict[str, CatalogModel], list[CatalogModel]]]:
    """Checks of `models` under way, the models, and those that were checked, as they were then."""
    known, checked = {model.id: model for model in models}, list[CatalogModel]()
    checks = Checks(known.get, list, lambda model, _outcome: checked.append(model), ())
    async with trio.open_nursery() as nursery:
        await nursery.start(checks.run)
        for model_id in known:
            checks.start(model_id)
        await trio.testing.wait_all_tasks_blocked()
        yield checks, known, checked
        nursery.cancel_scope.cancel()


async def a_model(model_id: str, digest: str = RIGHT) -> CatalogModel:
    return await known(Shelf(), model_id, digest=digest)


async def test_a_check_that_is_stopped_is_interrupted(monkeypatch: pytest.MonkeyPatch):
    held = HeldChecks(monkeypatch)
    async with checking(await a_model("a")) as (checks, _known, checked):
        assert ("a" in checks, held.running) == (True, 1)
        checks.stop("a")
        await trio.testing.wait_all_tasks_blocked()
        assert ("a" in checks, held.running, checked) == (False, 0, [])


async def test_a_model_that_goes_in_the_moment_in_which_its_check_begins_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
):
    held = HeldChecks(monkeypatch)
    async with checking(await a_model("a"), await a_model("b")) as (checks, known, checked):
        [first] = held.begun
        [second] = set(known) - {first}

        def done(model: CatalogModel, _outcome: Outcome) -> None:
            checked.append(model)
            del known[second]  # its check has the turn by now, and has not run yet
            checks.stop(second)

        monkeypatch.setattr(checks, "_done", done)
        held.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (held.begun, [model.id for model in checked]) == ([first], [first])


async def test_an_outcome_of_a_model_that_has_just_been_replaced_is_of_no_use(monkeypatch: pytest.MonkeyPatch):
    held = HeldChecks(monkeypatch)
    async with checking(await a_model("a")) as (checks, known, checked):
        held.go.set()  # the check is done, and its task has not run yet
        checks.stop("a")
        known["a"] = other = known["a"].model_copy(update={"digest": WRONG})
        checks.start("a")
        await trio.testing.wait_all_tasks_blocked()
        assert (checked, held.begun, "a" in checks) == ([other], ["a", "a"], False)


async def test_a_check_is_of_the_model_that_is_there_now(monkeypatch: pytest.MonkeyPatch):
    shelf, held = Shelf(), HeldChecks(monkeypatch)
    async with shelf.running():
        await known(shelf, digest=RIGHT)
        await trio.testing.wait_all_tasks_blocked()
        await shelf.catalog.remove("m")
        await known(shelf, digest=WRONG)
        await trio.testing.wait_all_tasks_blocked()
        held.go.set()
        assert (await shelf.until(S.VERIFIED)).actual == WRONG


async def test_a_model_that_is_retired_while_it_is_checked_is_both(monkeypatch: pytest.MonkeyPatch):
    shelf, held = Shelf(), HeldChecks(monkeypatch)
    async with shelf.running():
        model = await known(shelf, digest=RIGHT)
        await shelf.catalog.set_state(model, ModelState.RETIRED)
        held.go.set()
        await shelf.until(S.VERIFIED)
        found = shelf.catalog.model("m")
        assert found is not None
        assert found.state is ModelState.RETIRED
        assert await shelf.agrees()


async def test_no_task_runs_on_a_pool_whose_model_is_not_what_its_digest_says():
    async with running_queen() as queen, trio.open_nursery() as nursery:
        catalog = queen.catalog
        name = "hf:org/repo/tiny.gguf"
        queen.pool(models_available=[name], model_digests={name: WRONG})
        await nursery.start(catalog.run)
        await catalog.add(new(digest=RIGHT))
        await until(catalog, "m", S.MISMATCH)
        for request in ({"model_ref": "m"}, {"model_ref": "tiny"}, {"model_ref": name}):
            assert refusal(partial(queen.submit, **request)).status == 409
        refused = refusal(queen.submit)
        assert "is not what its digest in the catalog says" in refused.body.message
        await catalog.remove("m")
        task = queen.submit(model_ref="tiny")
        assert (await end_events(task))[-1] == "end"
        nursery.cancel_scope.cancel()


async def test_the_next_queen_withholds_a_mismatch_before_it_has_checked_anything():
    async with scripted_engine() as engine:
        name = "hf:org/repo/tiny.gguf"
        shelf = Shelf()
        shelf.serve(WRONG)
        async with shelf.running():
            await known(shelf, digest=RIGHT)
            await shelf.until(S.MISMATCH)
        queen = build_queen(engine, store=shelf.store.after_restart())
        await queen.catalog.load()
        queen.pool(models_available=[name])
        assert refusal(queen.submit).status == 400


async def test_a_digest_in_the_reason_of_an_older_release_is_not_shown():
    shelf = Shelf()
    model = await known(shelf, digest=RIGHT)
    words = f"/etc/shadow has {WRONG}, and the catalog wants {RIGHT}"
    old = model.model_copy(update={"verification": Verification(state=S.MISMATCH, reason=words, actual=WRONG)})
    shelf.store.put_later("model", Document("m", old.model_dump_json()))
    found = (await shelf.restarted()).catalog.model("m")
    assert found is not None
    assert (found.digest, found.verification.actual) == (RIGHT, WRONG)
    assert found.verification.reason == f"/etc/shadow has another digest, and the catalog wants {RIGHT}"
