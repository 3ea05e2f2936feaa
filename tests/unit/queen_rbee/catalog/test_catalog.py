"""The catalog: name lookup, withholding of models with wrong digests, verification runs, and persistence."""

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
from queen_rbee.catalog import verification
from queen_rbee.catalog.catalog import Catalog
from queen_rbee.catalog.verification import VerificationOutcome, Verifier
from queen_rbee.metrics import Metrics
from queen_rbee.store.protocol import Document, StoreFailure
from tests.unit.queen_rbee.memory_store import MemoryStore
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, build_queen, end_events, running_queen
from tests.unit.queen_rbee.scripted_engine import scripted_engine

RIGHT, WRONG = "sha256:" + "a" * 64, "sha256:" + "b" * 64
FULL = StoreFailure("the disk is full")
S = VerificationState


class CatalogFixture:
    """A catalog over an in-memory store, its pools, and the names it withholds."""

    def __init__(self, store: MemoryStore | None = None, **options) -> None:
        self.store = store or MemoryStore()
        self.metrics = Metrics()
        self.pools: list[PoolStatus] = []
        self.withheld: frozenset[str] = frozenset()
        self.catalog = Catalog(self.store, lambda: self.pools, self.metrics, self.withhold, **options)

    def withhold(self, names: frozenset[str]) -> None:
        self.withheld = names

    async def after_restart(self) -> "CatalogFixture":
        """Return the catalog that the next queen loads."""
        after = CatalogFixture(self.store.after_restart())
        await after.catalog.load()
        return after

    async def matches_store(self) -> bool:
        """Return whether a restarted queen would load the same models."""
        return (await self.after_restart()).catalog.models() == self.catalog.models()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the catalog's loop."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.catalog.run)
            yield
            nursery.cancel_scope.cancel()

    def state(self, model_id: str = "m") -> VerificationState:
        model = self.catalog.model(model_id)
        assert model is not None
        return model.verification.state

    async def until(self, state: VerificationState, model_id: str = "m") -> Verification:
        """Wait for the state and return the outcome."""
        return await until(self.catalog, model_id, state)

    def serve(self, digest: str | None, name: str = "hf:org/repo/tiny.gguf") -> None:
        """Add a pool that serves the model and reports its digest."""
        digests = {name: digest} if digest else {}
        default = {"state": PoolState.READY, "live": True, "ready": True, "draining": False, "engine": "llamacpp"}
        self.pools = [PoolStatus(pool_id="p", models_available=[name], model_digests=digests, **default)]

    def count(self, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value("catalog_verifications_total", labels)


async def until(catalog: Catalog, model_id: str, state: VerificationState) -> Verification:
    """Wait until the verification has this state and return it."""
    with trio.fail_after(TIMEOUT_S):
        while not (found := catalog.model(model_id)) or found.verification.state is not state:  # noqa: ASYNC110
            await trio.sleep(0.001)  # files are hashed in threads, and autojump clocks need a sleep
    return found.verification


def new(model_id: str = "m", **fields) -> NewModel:
    return NewModel.model_validate({"id": model_id, "model_ref": "hf:org/repo/tiny.gguf", **fields})


async def known(fixture: CatalogFixture, model_id: str = "m", **fields) -> CatalogModel:
    model, _is_new = await fixture.catalog.add(new(model_id, **fields))
    return model


def refusal(call: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


async def test_added_model_survives_restart():
    fixture = CatalogFixture()
    model, is_new = await fixture.catalog.add(new(metadata={"licence": "MIT"}, cost_per_1k_tokens=0.5))
    assert is_new
    assert (model.state, model.verification.state) == (ModelState.ACTIVE, S.UNVERIFIED)
    assert fixture.catalog.models() == [model]
    assert await fixture.matches_store()


async def test_id_of_different_model_is_refused():
    fixture = CatalogFixture()
    model = await known(fixture)
    assert await fixture.catalog.add(new()) == (model, False)
    with pytest.raises(ApiError) as caught:
        await fixture.catalog.add(new(digest=RIGHT))
    assert (caught.value.status, caught.value.body.code) == (409, ErrorCode.INVALID_PARAMS)
    assert "is already taken by another model" in caught.value.body.message
    assert fixture.catalog.models() == [model]


async def test_full_catalog_refuses_model():
    fixture = CatalogFixture(limit=1)
    await known(fixture)
    with pytest.raises(ApiError, match="the catalog is full"):
        await known(fixture, "other")
    assert await fixture.catalog.add(new()) == (fixture.catalog.model("m"), False)


CHANGES: dict[str, Callable[[Catalog, CatalogModel], Awaitable[object]]] = {
    "add": lambda catalog, _model: catalog.add(new()),
    "remove": lambda catalog, model: catalog.remove(model.id),
    "retire": lambda catalog, model: catalog.set_state(model, ModelState.RETIRED),
    "verify": lambda catalog, model: catalog.verify(model),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_change_that_cannot_be_stored_is_undone(change: str):
    fixture = CatalogFixture()
    model = await known(fixture, "other", digest=RIGHT)
    fixture.store.failure = FULL
    with pytest.raises(StoreFailure):
        await CHANGES[change](fixture.catalog, model)
    fixture.store.failure = None
    assert fixture.catalog.models() == [model]
    assert await fixture.matches_store()


async def test_id_of_removed_model_is_free():
    fixture = CatalogFixture()
    await known(fixture)
    assert await fixture.catalog.remove("m")
    assert fixture.catalog.models() == []
    assert await fixture.matches_store()
    assert not await fixture.catalog.remove("m")
    assert (await known(fixture, digest=RIGHT)).digest == RIGHT


async def test_unreadable_model_in_store_is_skipped_and_logged(caplog: pytest.LogCaptureFixture):
    fixture = CatalogFixture()
    model = await known(fixture)
    fixture.store.put_later("model", Document("something", "{}"))
    assert (await fixture.after_restart()).catalog.models() == [model]
    assert "skipping model something in the store" in caplog.text


async def test_model_state_metric_follows_model():
    fixture = CatalogFixture()

    def metric(state: str) -> float | None:
        return fixture.metrics.registry.get_sample_value("model_state", {"model_id": "m", "state": state})

    model = await known(fixture)
    assert (metric("Active"), metric("Retired")) == (1, 0)
    await fixture.catalog.set_state(model, ModelState.RETIRED)
    assert (metric("Active"), metric("Retired")) == (0, 1)
    await fixture.catalog.remove("m")
    assert (metric("Active"), metric("Retired")) == (None, None)


NAMES = ["m", "tiny", "TINY", "tiny.gguf", "hf:org/repo/tiny.gguf", "hf:other/copy/Tiny.gguf", "file:/srv/tiny.gguf"]


@pytest.mark.parametrize("name", NAMES)
async def test_model_is_found_by_id_and_served_names(name: str):
    fixture = CatalogFixture()
    model = await known(fixture, cost_per_1k_tokens=2.0)
    assert fixture.catalog.find(name) == model
    assert fixture.catalog.model_ref_for(name) == (model.model_ref if name == "m" else name)
    assert fixture.catalog.price(name) == 2.0


async def test_unknown_name_is_passed_through():
    fixture = CatalogFixture()
    await known(fixture)
    assert fixture.catalog.find("other") is None
    assert (fixture.catalog.model_ref_for("other"), fixture.catalog.price("other")) == ("other", 0.0)


async def test_price_without_name_is_unknown_if_any_model_costs():
    fixture = CatalogFixture()
    assert fixture.catalog.price(None) == 0.0
    await known(fixture, cost_per_1k_tokens=2.0)
    assert fixture.catalog.price(None) is None
    assert (await fixture.after_restart()).catalog.price(None) is None
    await fixture.catalog.remove("m")
    assert fixture.catalog.price(None) == 0.0


@pytest.mark.parametrize("name", NAMES)
async def test_retired_model_is_refused_by_every_name(name: str):
    fixture = CatalogFixture()
    retired = await fixture.catalog.set_state(await known(fixture), ModelState.RETIRED)
    for catalog in (fixture.catalog, (await fixture.after_restart()).catalog):
        refused = refusal(partial(catalog.model_ref_for, name))
        assert (refused.status, refused.body.message) == (404, "model_ref: the model m is retired")
        assert "POST /v2/catalog/models/m/state" in (refused.body.hint or "")
    await fixture.catalog.set_state(retired, ModelState.ACTIVE)
    fixture.catalog.model_ref_for(name)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_shared_name_finds_first_servable_model(changes: list[tuple[str, bool]]):
    async def play() -> None:
        fixture = CatalogFixture()
        active: dict[str, bool] = {}
        for model_id, retire in changes:
            model = await known(fixture, model_id)
            await fixture.catalog.set_state(model, ModelState.RETIRED if retire else ModelState.ACTIVE)
            active[model_id] = not retire
        found = fixture.catalog.find("tiny")
        expected = min((each for each in active if active[each]), default=min(active, default=None))
        assert (found and found.id) == expected

    trio.run(play)


async def test_given_digest_is_verified(tmp_path: Path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"weights")
    fixture, digest = CatalogFixture(directories=[tmp_path]), f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    async with fixture.running():
        model = await known(fixture, model_ref=f"file:{path}", digest=digest)
        assert model.verification.state is S.PENDING
        found = await fixture.until(S.VERIFIED)
        assert (found.reason, found.actual, found.checked_at is not None) == (None, digest, True)
        assert fixture.count(result="verified", reason="file", engine="") == 1
        assert await fixture.matches_store()


async def test_mismatch_is_withheld_counted_logged_and_stored(
    caplog: pytest.LogCaptureFixture,
):
    fixture = CatalogFixture()
    fixture.serve(WRONG)
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        found = await fixture.until(S.MISMATCH)
    assert (found.actual, found.reason) == (WRONG, "the digest of pool p differs from the catalog")
    assert fixture.count(result="mismatch", reason="pool_report", engine="llamacpp") == 1
    assert any("model_mismatch" in str(vars(record)) for record in caplog.records)
    for each in (fixture, await fixture.after_restart()):
        assert each.withheld == {"tiny"}
        refused = refusal(partial(each.catalog.model_ref_for, "m"))
        assert (refused.status, refused.body.code) == (409, ErrorCode.INVALID_PARAMS)
        assert WRONG not in refused.body.message
        assert "POST /v2/catalog/models/m/verify" in (refused.body.hint or "")
    assert await fixture.matches_store()


async def test_corrected_model_is_served_after_verification():
    fixture = CatalogFixture()
    fixture.serve(WRONG)
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        await fixture.until(S.MISMATCH)
    model = fixture.catalog.model("m")
    assert model is not None
    fixture = await fixture.after_restart()  # nothing is verified here yet
    await fixture.catalog.verify(model)
    assert fixture.state() is S.PENDING
    assert fixture.withheld == {"tiny"}
    assert refusal(lambda: fixture.catalog.model_ref_for("m")).status == 409
    fixture.serve(RIGHT)
    async with fixture.running():
        await fixture.until(S.VERIFIED)
    assert fixture.withheld == frozenset()
    fixture.catalog.model_ref_for("m")


async def test_removing_mismatch_releases_its_name():
    fixture = CatalogFixture()
    fixture.serve(WRONG)
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        await fixture.until(S.MISMATCH)
        await fixture.catalog.remove("m")
        assert fixture.withheld == frozenset()


async def test_verified_model_is_served_despite_other_mismatch():
    fixture = CatalogFixture()
    fixture.serve(WRONG)
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        await known(fixture, "right", digest=WRONG)
        await fixture.until(S.MISMATCH)
        await fixture.until(S.VERIFIED, "right")
        assert fixture.withheld == frozenset()
        assert fixture.catalog.find("tiny") == fixture.catalog.model("right")
        assert refusal(lambda: fixture.catalog.model_ref_for("m")).status == 409


async def test_interrupted_verification_restarts():
    fixture = CatalogFixture()
    await known(fixture, digest=RIGHT)  # nothing runs: as if it took long
    after = await fixture.after_restart()
    assert after.state() is S.PENDING
    after.serve(RIGHT)
    async with after.running():
        await after.until(S.VERIFIED)
    assert await after.matches_store()


@pytest.mark.parametrize(("digest", "outcome"), [(RIGHT, S.VERIFIED), (WRONG, S.MISMATCH)])
async def test_later_pool_changes_unavailable_outcome(
    digest: str, outcome: VerificationState, autojump_clock: trio.testing.MockClock
):
    fixture = CatalogFixture()
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        await fixture.until(S.UNAVAILABLE)
        fixture.serve(digest)
        await fixture.until(outcome)
        assert fixture.withheld == ({"tiny"} if outcome is S.MISMATCH else frozenset())
        await trio.sleep(60)
        assert fixture.count(result=outcome.value, reason="pool_report", engine="llamacpp") == 1


async def test_verified_model_is_withheld_by_pool_with_other_file(
    autojump_clock: trio.testing.MockClock,
):
    fixture = CatalogFixture()
    fixture.serve(RIGHT)
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        await fixture.until(S.VERIFIED)
        fixture.serve(WRONG)
        await fixture.until(S.MISMATCH)
        assert fixture.withheld == {"tiny"}


async def test_model_without_digest_is_unverified():
    fixture = CatalogFixture()
    fixture.serve(WRONG)
    async with fixture.running():
        model = await known(fixture)
        await fixture.catalog.verify(model)
        found = await fixture.until(S.UNVERIFIED)
        assert "no digest was given" in (found.reason or "")
        fixture.catalog.model_ref_for("m")


class HeldVerifications:
    """Replaces `verify` by a function that waits for `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: VerificationState = S.VERIFIED) -> None:
        self.started: list[str] = []
        self.most_running = self.running = 0
        self.go = trio.Event()
        self.outcome = outcome
        monkeypatch.setattr(verification, "verify", self.verify)

    async def verify(self, model: CatalogModel, _pools: object, _directories: object) -> VerificationOutcome:
        self.started.append(model.id)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        return VerificationOutcome(self.outcome, "file", None, model.digest)


async def test_verifications_run_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    fixture, held = CatalogFixture(), HeldVerifications(monkeypatch)
    async with fixture.running():
        for model_id in "abc":
            model = await known(fixture, model_id, digest=RIGHT)
            await fixture.catalog.verify(model)
        await trio.testing.wait_all_tasks_blocked()
        held.go.set()
        for model_id in "abc":
            await fixture.until(S.VERIFIED, model_id)
        assert (sorted(held.started), held.most_running) == (["a", "b", "c"], 1)


async def test_model_removed_during_verification_stays_removed(monkeypatch: pytest.MonkeyPatch):
    fixture, held = CatalogFixture(), HeldVerifications(monkeypatch)
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        await trio.testing.wait_all_tasks_blocked()
        held.go.set()
        await fixture.catalog.remove("m")
        await trio.testing.wait_all_tasks_blocked()
        assert fixture.catalog.models() == []
        assert fixture.store.documents["model"] == {}


@asynccontextmanager
async def verifying(
    *models: CatalogModel,
) -> AsyncIterator[tuple[Verifier, dict[str, CatalogModel], list[CatalogModel]]]:
    """Start verifications of `models`; yield the verifier, the models by id, and the list of verified models."""
    known, verified = {model.id: model for model in models}, list[CatalogModel]()
    verifier = Verifier(known.get, list, lambda model, _outcome: verified.append(model), ())
    async with trio.open_nursery() as nursery:
        await nursery.start(verifier.run)
        for model_id in known:
            verifier.start(model_id)
        await trio.testing.wait_all_tasks_blocked()
        yield verifier, known, verified
        nursery.cancel_scope.cancel()


async def a_model(model_id: str, digest: str = RIGHT) -> CatalogModel:
    return await known(CatalogFixture(), model_id, digest=digest)


async def test_stop_cancels_running_verification(monkeypatch: pytest.MonkeyPatch):
    held = HeldVerifications(monkeypatch)
    async with verifying(await a_model("a")) as (verifier, _known, verified):
        assert ("a" in verifier, held.running) == (True, 1)
        verifier.stop("a")
        await trio.testing.wait_all_tasks_blocked()
        assert ("a" in verifier, held.running, verified) == (False, 0, [])


async def test_model_removed_as_its_turn_begins_is_not_verified(
    monkeypatch: pytest.MonkeyPatch,
):
    held = HeldVerifications(monkeypatch)
    async with verifying(await a_model("a"), await a_model("b")) as (verifier, known, verified):
        [first] = held.started
        [second] = set(known) - {first}

        def done(model: CatalogModel, _outcome: VerificationOutcome) -> None:
            verified.append(model)
            del known[second]  # its task has acquired the limiter, and has not run yet
            verifier.stop(second)

        monkeypatch.setattr(verifier, "_done", done)
        held.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (held.started, [model.id for model in verified]) == ([first], [first])


async def test_outcome_for_replaced_model_is_dropped(monkeypatch: pytest.MonkeyPatch):
    held = HeldVerifications(monkeypatch)
    async with verifying(await a_model("a")) as (verifier, known, verified):
        held.go.set()  # the verification has ended, and its task has not run yet
        verifier.stop("a")
        known["a"] = other = known["a"].model_copy(update={"digest": WRONG})
        verifier.start("a")
        await trio.testing.wait_all_tasks_blocked()
        assert (verified, held.started, "a" in verifier) == ([other], ["a", "a"], False)


async def test_replacing_model_restarts_verification(monkeypatch: pytest.MonkeyPatch):
    fixture, held = CatalogFixture(), HeldVerifications(monkeypatch)
    async with fixture.running():
        await known(fixture, digest=RIGHT)
        await trio.testing.wait_all_tasks_blocked()
        await fixture.catalog.remove("m")
        await known(fixture, digest=WRONG)
        await trio.testing.wait_all_tasks_blocked()
        held.go.set()
        assert (await fixture.until(S.VERIFIED)).actual == WRONG


async def test_model_can_be_retired_during_verification(monkeypatch: pytest.MonkeyPatch):
    fixture, held = CatalogFixture(), HeldVerifications(monkeypatch)
    async with fixture.running():
        model = await known(fixture, digest=RIGHT)
        await fixture.catalog.set_state(model, ModelState.RETIRED)
        held.go.set()
        await fixture.until(S.VERIFIED)
        found = fixture.catalog.model("m")
        assert found is not None
        assert found.state is ModelState.RETIRED
        assert await fixture.matches_store()


async def test_pool_with_mismatched_model_gets_no_task():
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
        assert "does not match the catalog" in refused.body.message
        await catalog.remove("m")
        task = queen.submit(model_ref="tiny")
        assert (await end_events(task))[-1] == "end"
        nursery.cancel_scope.cancel()


async def test_restarted_queen_withholds_mismatch_at_once():
    async with scripted_engine() as engine:
        name = "hf:org/repo/tiny.gguf"
        fixture = CatalogFixture()
        fixture.serve(WRONG)
        async with fixture.running():
            await known(fixture, digest=RIGHT)
            await fixture.until(S.MISMATCH)
        queen = build_queen(engine, store=fixture.store.after_restart())
        await queen.catalog.load()
        queen.pool(models_available=[name])
        assert refusal(queen.submit).status == 400


async def test_digest_in_reason_of_old_release_is_hidden():
    fixture = CatalogFixture()
    model = await known(fixture, digest=RIGHT)
    reason = f"/etc/shadow has {WRONG}, and the catalog wants {RIGHT}"
    old = model.model_copy(update={"verification": Verification(state=S.MISMATCH, reason=reason, actual=WRONG)})
    fixture.store.put_later("model", Document("m", old.model_dump_json()))
    found = (await fixture.after_restart()).catalog.model("m")
    assert found is not None
    assert (found.digest, found.verification.actual) == (RIGHT, WRONG)
    assert found.verification.reason == f"/etc/shadow has another digest, and the catalog wants {RIGHT}"
