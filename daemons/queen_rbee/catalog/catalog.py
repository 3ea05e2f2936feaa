"""The model catalog: the models that clients can request, and the verification of their digests.

The catalog is in memory and written through to the store. A digest is verified when it is added and on request, and
compared with the reports of pools for as long as the queen runs. A verification that a restart interrupts starts again.
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
from queen_rbee.catalog.names import NameIndex
from queen_rbee.catalog.verification import (
    VerificationOutcome,
    Verifier,
    can_be_reconsidered,
    digests_by_model,
    reconsider,
)
from queen_rbee.metrics import Metrics
from queen_rbee.store.protocol import Document, Store, StoreFailure

MODELS_LIMIT = 10_000
COMPARE_S = 5.0
"""The interval between comparisons of the catalog with the reports of pools."""
DIGEST_IN_REASON = re.compile(r"(?<= has )sha256:[0-9a-f]{64}(?=, and the catalog wants)")
"""Release 0.1.0 wrote the digest it found into the reason, which clients can read."""
PENDING = Verification(state=VerificationState.PENDING)

log = logging.getLogger(__name__)


class Catalog:
    """Owns all models, at most `limit`.

    `pools` returns the known pools. `withhold` is called with the `model_key` of all models that no pool may be asked
    for. Only files below `directories` are read.
    """

    def __init__(
        self,
        store: Store,
        pools: Callable[[], Collection[PoolStatus]],
        metrics: Metrics,
        withhold: Callable[[frozenset[str]], None],
        limit: int = MODELS_LIMIT,
        directories: Sequence[Path] = (),
    ) -> None:
        self._store = store
        self._pools = pools
        self._metrics = metrics
        self._withhold = withhold
        self._limit = limit
        self._models: dict[str, CatalogModel] = {}
        self._names = NameIndex(self._models)
        self._has_prices = False
        self._verifier = Verifier(self.model, pools, self._record, directories)

    async def load(self) -> None:
        """Load the models from the store. Raises StoreFailure."""
        found = [_read(document) for document in await self._store.list_documents("model")]
        self._models = {model.id: model for model in found if model}
        self._index()
        for model in self._models.values():
            self._update_metric(model)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Verify models forever, starting with those that are pending."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._verifier.run)
            for model in self.models():
                if model.verification.state is VerificationState.PENDING:
                    self._verifier.start(model.id)
            task_status.started()
            while True:
                await trio.sleep(COMPARE_S)
                self._compare()

    def _compare(self) -> None:
        """Reconsider outcomes by the pools' current reports: a new pool may have another file, or the first digest."""
        due = [model for model in self.models() if can_be_reconsidered(model) and model.id not in self._verifier]
        reports = digests_by_model(self._pools()) if due else {}
        for model in due:
            if outcome := reconsider(model, reports):
                self._record(model, outcome)

    def models(self) -> list[CatalogModel]:
        """Return all models, sorted by id."""
        return [self._models[model_id] for model_id in sorted(self._models)]

    def model(self, model_id: str) -> CatalogModel | None:
        return self._models.get(model_id)

    def find(self, name: str) -> CatalogModel | None:
        """Return the model that a client means by `name`: an id, or a name under which pools serve it."""
        return self._names.find(name)

    def model_ref_for(self, name: str) -> str:
        """Return the model name to look for among pools; a name that the catalog does not know stays as it is.

        Raises ApiError 404 for a retired model, 409 for one whose digest does not match.
        """
        return self._names.model_ref_for(name)

    def price(self, name: str | None) -> float | None:
        """Return the cost of 1000 tokens of the model `name`, 0 if the catalog does not know it.

        None if the cost is unknown: no model is named, and at least one has a price.
        """
        if name is None:
            return None if self._has_prices else 0.0
        model = self.find(name)
        return model.cost_per_1k_tokens if model else 0.0

    async def add(self, new: NewModel) -> tuple[CatalogModel, bool]:
        """Add a model, and start the verification of its digest. Return the model and whether it is new.

        Durable on return. Raises ApiError 409 if the id belongs to a different model or the catalog is full,
        StoreFailure.
        """
        if known := self._models.get(new.id):
            if _content(known) != new:
                problem = "is already taken by another model; delete that one first, or choose another id"
                raise ApiError(409, invalid([("id", problem)]))
            return known, False
        if len(self._models) >= self._limit:
            raise ApiError(409, invalid([("id", f"the catalog is full ({self._limit} models); delete one first")]))
        now = datetime.now(UTC)
        verification = PENDING if new.digest else Verification()
        model = CatalogModel(**new.model_dump(), created_at=now, updated_at=now, verification=verification)
        await self._commit(model)
        return model, True

    async def remove(self, model_id: str) -> bool:
        """Remove a model; return whether it existed. Durable on return. Raises StoreFailure, and then it stays."""
        model = self._models.get(model_id)
        if model is None:
            return False
        self._drop(model_id)
        try:
            await self._store.remove("model", model_id)
        except StoreFailure:
            if model_id not in self._models:
                self._set(model)
            raise
        return True

    async def set_state(self, model: CatalogModel, state: ModelState) -> CatalogModel:
        """Retire or activate `model`. Durable on return. Raises StoreFailure."""
        changed = model.model_copy(update={"state": state, "updated_at": datetime.now(UTC)})
        await self._commit(changed)
        return changed

    async def verify(self, model: CatalogModel) -> CatalogModel:
        """Start a verification of `model` unless one is running. Raises StoreFailure.

        The previous outcome applies until there is a new one: a withheld model stays withheld.
        """
        if model.id in self._verifier:
            return model
        pending = model.verification.model_copy(update={"state": VerificationState.PENDING})
        changed = model.model_copy(update={"verification": pending})
        await self._commit(changed)
        return changed

    async def _commit(self, model: CatalogModel) -> None:
        """Put `model` into memory and the store, or into neither. Raises StoreFailure."""
        before = self._models.get(model.id)
        self._set(model)
        try:
            await self._store.put("model", _document(model))
        except StoreFailure:
            if before is None:
                self._drop(model.id)
            elif self._models.get(model.id) is model:
                self._set(before)
            raise

    def _set(self, model: CatalogModel) -> None:
        self._models[model.id] = model
        self._index()
        self._update_metric(model)
        if model.verification.state is VerificationState.PENDING:
            self._verifier.start(model.id)

    def _drop(self, model_id: str) -> None:
        self._verifier.stop(model_id)
        if self._models.pop(model_id, None):
            self._index()
            for state in ModelState:
                self._metrics.model_state.remove(model_id, state.value)

    def _index(self) -> None:
        self._names = NameIndex(self._models)
        self._has_prices = any(model.cost_per_1k_tokens for model in self._models.values())
        self._withhold(self._names.withheld_keys())

    def _update_metric(self, model: CatalogModel) -> None:
        for state in ModelState:
            self._metrics.model_state.labels(model.id, state.value).set(state is model.state)

    def _record(self, model: CatalogModel, outcome: VerificationOutcome) -> None:
        self._metrics.verifications.labels(outcome.state.value, outcome.reason, outcome.engine).inc()
        verified = model.model_copy(update={"verification": outcome.verification(datetime.now(UTC))})
        self._set(verified)
        self._store.put_later("model", _document(verified))
        if outcome.state is VerificationState.MISMATCH:
            emit(MODEL_MISMATCH, model_id=model.id, reason=outcome.message)


def _content(model: CatalogModel) -> NewModel:
    return NewModel.model_validate(model.model_dump(include=set(NewModel.model_fields)))


def _document(model: CatalogModel) -> Document:
    return Document(model.id, model.model_dump_json(), stored=model.updated_at.timestamp())


def _read(document: Document) -> CatalogModel | None:
    """Return the stored model. Log and skip one that this release cannot read."""
    try:
        return CatalogModel.model_validate_json(DIGEST_IN_REASON.sub("another digest", document.body))
    except ValidationError as error:
        log.warning("skipping model %s in the store: %s", document.key, error)
        return None
