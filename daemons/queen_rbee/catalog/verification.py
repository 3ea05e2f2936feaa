"""Whether a model is what its digest says: the file where the queen can read it, and what pools report of theirs.

Every source must agree: a task that asks for the model may be placed on any of those pools.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import trio

from llama_orch.contracts.catalog import CatalogModel, Verification, VerificationState
from llama_orch.contracts.pools import PoolStatus
from llama_orch.engines.wire.model_names import model_key
from llama_orch.files.digest import Unreadable, file_digest, local_path

Reason = Literal["file", "pool_report", "no_digest", "no_source"]
"""What a check rests on; a label of catalog_verifications_total."""


@dataclass(frozen=True)
class Evidence:
    """A digest that was found: `where` in words, `engine` of the pool that reports it, empty for a file."""

    digest: str
    where: str
    reason: Reason
    engine: str = ""


Reports = Mapping[str, Sequence[Evidence]]
"""What pools report of a model, by its short name."""


@dataclass(frozen=True)
class Outcome:
    """How a check ended, for the catalog and for the metric."""

    state: VerificationState
    reason: Reason
    words: str | None = None
    actual: str | None = None
    engine: str = ""

    def verification(self, now: datetime) -> Verification:
        """As the catalog keeps it."""
        return Verification(state=self.state, checked_at=now, reason=self.words, actual=self.actual)


async def check(
    model: CatalogModel, pools: Callable[[], Collection[PoolStatus]], directories: Sequence[Path]
) -> Outcome:
    """Check `model` now; takes as long as reading its file does, which must be below one of `directories`. `pools` are
    asked after that."""
    if model.digest is None:
        words = "no digest was given to check: delete the model and post it with one"
        return Outcome(VerificationState.UNVERIFIED, "no_digest", words)
    evidence, trouble = await _of_file(model.model_ref, directories)
    return judged(model.digest, [*evidence, *reported(model.model_ref, reports_of(pools()))], trouble)


def reconsiderable(model: CatalogModel) -> bool:
    """Whether what pools report can change how a check ended; a mismatch stays until a client has it checked again."""
    found = model.verification.state
    return model.digest is not None and found in (VerificationState.VERIFIED, VerificationState.UNAVAILABLE)


def reconsidered(model: CatalogModel, reports: Reports) -> Outcome | None:
    """The outcome that `reports` give to a model that is reconsiderable; None where that changes nothing. No file is
    read."""
    evidence = reported(model.model_ref, reports)
    outcome = judged(model.digest or "", evidence, "")
    return outcome if evidence and outcome.state is not model.verification.state else None


async def _of_file(model_ref: str, directories: Sequence[Path]) -> tuple[list[Evidence], str]:
    """The file's digest, or why there is none."""
    path = local_path(model_ref)
    if path is None:
        return [], "the model is no file: of this machine"
    try:
        return [Evidence(await file_digest(path, directories), "its file", "file")], ""
    except Unreadable as error:
        return [], f"the queen cannot read {path}: {error}"


def reports_of(pools: Iterable[PoolStatus]) -> Reports:
    """What all pools report, sorted once for all models: there may be thousands of either."""
    found: dict[str, list[Evidence]] = {}
    for pool in pools:
        for model, digest in pool.model_digests.items():
            evidence = Evidence(digest.lower(), f"pool {pool.pool_id}", "pool_report", pool.engine)
            found.setdefault(model_key(model), []).append(evidence)
    return found


def reported(model_ref: str, reports: Reports) -> Sequence[Evidence]:
    """What those pools report that would be asked for `model_ref`."""
    return reports.get(model_key(model_ref), ())


def judged(wanted: str, evidence: Sequence[Evidence], trouble: str) -> Outcome:
    """The outcome of comparing `wanted` with all that was found; `trouble` is why there was no file to hash."""
    wrong = next((found for found in evidence if found.digest != wanted), None)
    if wrong:
        words = f"{wrong.where} has another digest than the catalog"
        return Outcome(VerificationState.MISMATCH, wrong.reason, words, wrong.digest, wrong.engine)
    if not evidence:
        words = f"{trouble}, and no pool reports a checked digest of it (model.checksum in the pools file)"
        return Outcome(VerificationState.UNAVAILABLE, "no_source", words)
    return Outcome(VerificationState.VERIFIED, evidence[0].reason, None, wanted, evidence[0].engine)


Done = Callable[[CatalogModel, Outcome], None]


class Checks:
    """`model` finds a model by its id, `pools` tells what is known of pools, `done` takes the outcome; files of models
    are below `directories`."""

    def __init__(
        self,
        model: Callable[[str], CatalogModel | None],
        pools: Callable[[], Collection[PoolStatus]],
        done: Done,
        directories: Sequence[Path],
    ) -> None:
        self._directories = directories
        self._model = model
        self._pools = pools
        self._done = done
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._one_at_a_time = trio.CapacityLimiter(1)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._scopes

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the checks, for ever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def start(self, model_id: str) -> None:
        """Begin a check, unless one is under way, or nothing runs yet."""
        if self._nursery and model_id not in self._scopes:
            self._scopes[model_id] = trio.CancelScope()
            self._nursery.start_soon(self._check, model_id, self._scopes[model_id])

    def stop(self, model_id: str) -> None:
        """The model is checked no more."""
        if scope := self._scopes.pop(model_id, None):
            scope.cancel()

    async def _check(self, model_id: str, scope: trio.CancelScope) -> None:
        with scope:
            async with self._one_at_a_time:
                # whoever got the turn in the moment in which its check was stopped is not interrupted before it waits
                model = self._model(model_id)
                outcome = await check(model, self._pools, self._directories) if model else None
            if outcome and self._scopes.get(model_id) is scope and (model := self._model(model_id)):
                del self._scopes[model_id]
                self._done(model, outcome)
