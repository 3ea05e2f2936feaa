"""The one owner of the model catalog: which names clients may ask for, and whether models are what they should be.

In memory, with the store behind it. A digest is checked when it is given and when a client wishes, and what pools
report of it for as long as the queen runs; a check that a restart cut short begins again.
"""

import logging
import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import trio
from pydantic import ValidationError

from llama_orch.contracts.catalog import CatalogModel, ModelState, NewModel, Verification, VerificationState
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.pools import PoolStatus
from llama_orch.http.server.bodies import invalid
from llama_orch.telemetry.events.queen import MODEL_MISMATCH
from llama_orch.telemetry.records import emit
from queen_rbee.catalog import names as catalog_names
from queen_rbee.catalog.verification import Checks, Outcome, reconsiderable, reconsidered, reports_of
from queen_rbee.metrics import Metrics
from queen_rbee.store.protocol import Document, Store, StoreFailure

LIMIT = 10_000
COMPARE_S = 5.0
"""So often what pools report is compared with the catalog."""
WRITTEN_DIGEST = re.compile(r"(?<= has )sha256:[0-9a-f]{64}(?=, and the catalog wants)")
PENDING = Verification(state=VerificationState.PENDING)

log = logging.getLogger(__name__)


class Catalog:
    """At most `limit` models by their ids; `pools` tells what is known of pools now, and `withhold` is told the short
    names of those models that no pool may be asked for: they are not what their digests say. Files of models are below
    `directories`."""

    def __init__(
        self,
        store: Store,
        pools: Callable[[], Collection[PoolStatus]],
        metrics: Metrics,
        withhold: Callable[[frozenset[str]], None],
        limit: int = LIMIT,
        directories: Sequence[Path] = (),
    ) -> None:
        self._store = store
        self._pools = pools
        self._metrics = metrics
        self._withhold = withhold
        self._limit = limit
        self._models: dict[str, CatalogModel] = {}
        self._refs: catalog_names.ByRef = {}
        self._priced = False
        self._checks = Checks(self.model, pools, self._checked, directories)

    async def load(self) -> None:
        """Know again what was stored. Raises StoreFailure."""
        found = [_read(document) for document in await self._store.listed("model")]
        self._models = {model.id: model for model in found if model}
        self._index()
        for model in self._models.values():
            self._show(model)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check what is to be checked, for ever."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._checks.run)
            for model in self.models():
                if model.verification.state is VerificationState.PENDING:
                    self._checks.start(model.id)
            task_status.started()
            while True:
                await trio.sleep(COMPARE_S)
                self._compare()

    def _compare(self) -> None:
        """Judge again by what pools report now: one that came later may bring another file, or the first digest."""
        due = [model for model in self.models() if reconsiderable(model) and model.id not in self._checks]
        reports = reports_of(self._pools()) if due else {}
        for model in due:
            if outcome := reconsidered(model, reports):
                self._checked(model, outcome)

    def models(self) -> list[CatalogModel]:
        """All models, by id."""
        return [self._models[model_id] for model_id in sorted(self._models)]

    def model(self, model_id: str) -> CatalogModel | None:
        """The model with that id."""
        return self._models.get(model_id)

    def resolve(self, name: str) -> CatalogModel | None:
        """The model that a client means by `name`: an id, or what pools serve it as."""
        return catalog_names.resolved(name, self._models, self._refs)

    def model_ref_for(self, name: str) -> str:
        """What to look for among pools where a client asks for `name`, which the catalog need not know.

        Raises ApiError 404 for a retired model, 409 for one that is not what its digest says.
        """
        return catalog_names.model_ref_for(name, self._models, self._refs)

    def price(self, name: str | None) -> float | None:
        """The cost of 1000 tokens of what a client means by `name`; what the catalog does not know costs nothing.

        None where that is not known yet: no model is named, and there are some that cost.
        """
        if name is None:
            return None if self._priced else 0.0
        model = self.resolve(name)
        return model.cost_per_1k_tokens if model else 0.0

    async def add(self, new: NewModel) -> tuple[CatalogModel, bool]:
        """The model, and whether it is new; a digest that is given is checked from now on.

        Durable on return. Raises ApiError 409 where the id belongs to another model, StoreFailure.
        """
        if known := self._models.get(new.id):
            if _content(known) != new:
                problem = "is already taken by another model; delete that first, or choose another id"
                raise ApiError(409, invalid([("id", problem)]))
            return known, False
        if len(self._models) >= self._limit:
            raise ApiError(409, invalid([("id", f"the catalog is full ({self._limit} models): delete one first")]))
        now = datetime.now(UTC)
        verification = PENDING if new.digest else Verification()
        model = CatalogModel(**new.model_dump(), created_at=now, updated_at=now, verification=verification)
        await self._commit(model)
        return model, True

    async def remove(self, model_id: str) -> bool:
        """Whether there was such a model. Durable on return; raises StoreFailure, and then it is still there."""
        model = self._models.get(model_id)
        if model is None:
            return False
        self._drop(model_id)
        try:
            await self._store.remove("model", model_id)
        except StoreFailure:
            if model_id not in self._models:
                self._keep(model)
            raise
        return True

    async def set_state(self, model: CatalogModel, state: ModelState) -> CatalogModel:
        """Retire `model`, or bring it back. Durable on return; raises StoreFailure."""
        changed = model.model_copy(update={"state": state, "updated_at": datetime.now(UTC)})
        await self._commit(changed)
        return changed

    async def verify(self, model: CatalogModel) -> CatalogModel:
        """Have the digest of `model` checked, unless that is under way. Raises StoreFailure.

        Until the outcome is known the last one stands: what was withheld stays so.
        """
        if model.id in self._checks:
            return model
        pending = model.verification.model_copy(update={"state": VerificationState.PENDING})
        changed = model.model_copy(update={"verification": pending})
        await self._commit(changed)
        return changed

    async def _commit(self, model: CatalogModel) -> None:
        """Keep and store `model`; what cannot be stored is not kept."""
        before = self._models.get(model.id)
        self._keep(model)
        try:
            await self._store.put("model", _written(model))
        except StoreFailure:
            if before is None:
                self._drop(model.id)
            elif self._models.get(model.id) is model:
                self._keep(before)
            raise

    def _keep(self, model: CatalogModel) -> None:
        self._models[model.id] = model
        self._index()
        self._show(model)
        if model.verification.state is VerificationState.PENDING:
            self._checks.start(model.id)

    def _drop(self, model_id: str) -> None:
        self._checks.stop(model_id)
        if self._models.pop(model_id, None):
            self._index()
            for state in ModelState:
                self._metrics.model_state.remove(model_id, state.value)

    def _index(self) -> None:
        self._refs = catalog_names.by_ref(self._models)
        self._priced = any(model.cost_per_1k_tokens for model in self._models.values())
        self._withhold(catalog_names.withheld_names(self._models, self._refs))

    def _show(self, model: CatalogModel) -> None:
        for state in ModelState:
            self._metrics.model_state.labels(model.id, state.value).set(state is model.state)

    def _checked(self, model: CatalogModel, outcome: Outcome) -> None:
        self._metrics.verifications.labels(outcome.state.value, outcome.reason, outcome.engine).inc()
        checked = model.model_copy(update={"verification": outcome.verification(datetime.now(UTC))})
        self._keep(checked)
        self._store.put_later("model", _written(checked))
        if outcome.state is VerificationState.MISMATCH:
            emit(MODEL_MISMATCH, model_id=model.id, reason=outcome.words)


def _content(model: CatalogModel) -> NewModel:
    return NewModel.model_validate(model.model_dump(include=set(NewModel.model_fields)))


def _written(model: CatalogModel) -> Document:
    return Document(model.id, model.model_dump_json(), stored=model.updated_at.timestamp())


def _read(document: Document) -> CatalogModel | None:
    """The model that was written; None, and said so in the log, where it cannot be understood.

    Release 0.1.0 wrote the digest that was found into the reason, which clients see.
    """
    try:
        return CatalogModel.model_validate_json(WRITTEN_DIGEST.sub("another digest", document.body))
    except ValidationError as error:
        log.warning("model %s in the store is not understood and left out: %s", document.key, error)
        return None
