"""Verification of model digests: of the file if the queen can read it, and of the digests that pools report.

All sources must agree, because a task that requests the model may be placed on any of these pools.
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
from llama_orch.files.digest import FileUnreadable, file_digest, local_path

VerificationReason = Literal["file", "pool_report", "no_digest", "no_source"]
"""What an outcome is based on; a label of catalog_verifications_total."""


@dataclass(frozen=True)
class Evidence:
    """A digest that was found.

    `source` describes its origin in messages. `engine` is that of the reporting pool, empty for a file.
    """

    digest: str
    source: str
    reason: VerificationReason
    engine: str = ""


ReportedDigests = Mapping[str, Sequence[Evidence]]
"""The digests that pools report, by `model_key`."""


@dataclass(frozen=True)
class VerificationOutcome:
    """The result of a verification, for the catalog and for the metric."""

    state: VerificationState
    reason: VerificationReason
    message: str | None = None
    actual: str | None = None
    engine: str = ""

    def verification(self, now: datetime) -> Verification:
        return Verification(state=self.state, checked_at=now, reason=self.message, actual=self.actual)


async def verify(
    model: CatalogModel, pools: Callable[[], Collection[PoolStatus]], directories: Sequence[Path]
) -> VerificationOutcome:
    """Verify `model`, which takes as long as reading its file, if that is below one of `directories`.

    `pools` is called after the file has been read.
    """
    if model.digest is None:
        message = "no digest was given; delete the model and add it again with one"
        return VerificationOutcome(VerificationState.UNVERIFIED, "no_digest", message)
    evidence, problem = await _file_evidence(model.model_ref, directories)
    return judge(model.digest, [*evidence, *_reported(model.model_ref, digests_by_model(pools()))], problem)


def can_be_reconsidered(model: CatalogModel) -> bool:
    """Return whether reports of pools can change the outcome.

    A mismatch stays until a client requests a verification.
    """
    state = model.verification.state
    return model.digest is not None and state in (VerificationState.VERIFIED, VerificationState.UNAVAILABLE)


def reconsider(model: CatalogModel, reports: ReportedDigests) -> VerificationOutcome | None:
    """Return the outcome that `reports` alone give for such a model, None if it does not change the state."""
    evidence = _reported(model.model_ref, reports)
    outcome = judge(model.digest or "", evidence, "")
    return outcome if evidence and outcome.state is not model.verification.state else None


async def _file_evidence(model_ref: str, directories: Sequence[Path]) -> tuple[list[Evidence], str]:
    """Return the digest of the file, or the reason why there is none."""
    path = local_path(model_ref)
    if path is None:
        return [], "the model is not a file: reference"
    try:
        return [Evidence(await file_digest(path, directories), "the file", "file")], ""
    except FileUnreadable as error:
        return [], f"the queen cannot read {path}: {error}"


def digests_by_model(pools: Iterable[PoolStatus]) -> ReportedDigests:
    """Index the digests that pools report. One index serves all models, since there may be thousands of both."""
    found: dict[str, list[Evidence]] = {}
    for pool in pools:
        for model, digest in pool.model_digests.items():
            evidence = Evidence(digest.lower(), f"pool {pool.pool_id}", "pool_report", pool.engine)
            found.setdefault(model_key(model), []).append(evidence)
    return found


def _reported(model_ref: str, reports: ReportedDigests) -> Sequence[Evidence]:
    return reports.get(model_key(model_ref), ())


def judge(expected: str, evidence: Sequence[Evidence], problem: str) -> VerificationOutcome:
    """Compare `expected` with all evidence; `problem` is the reason why there is no evidence of the file."""
    mismatch = next((found for found in evidence if found.digest != expected), None)
    if mismatch:
        message = f"the digest of {mismatch.source} differs from the catalog"
        return VerificationOutcome(
            VerificationState.MISMATCH, mismatch.reason, message, mismatch.digest, mismatch.engine
        )
    if not evidence:
        message = f"{problem}, and no pool reports a verified digest of it (model.checksum in the pools file)"
        return VerificationOutcome(VerificationState.UNAVAILABLE, "no_source", message)
    return VerificationOutcome(VerificationState.VERIFIED, evidence[0].reason, None, expected, evidence[0].engine)


class Verifier:
    """Runs verifications, one at a time, in a nursery of its own.

    `model` finds a model by its id, `pools` returns the known pools, `done` is called with each outcome. Only files
    below `directories` are read.
    """

    def __init__(
        self,
        model: Callable[[str], CatalogModel | None],
        pools: Callable[[], Collection[PoolStatus]],
        done: Callable[[CatalogModel, VerificationOutcome], None],
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
        """Return whether a verification of the model is running or queued."""
        return model_id in self._scopes

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the verifications that `start` adds, forever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def start(self, model_id: str) -> None:
        """Start a verification, unless one is running. Does nothing until `run` has started."""
        if self._nursery and model_id not in self._scopes:
            self._scopes[model_id] = trio.CancelScope()
            self._nursery.start_soon(self._verify, model_id, self._scopes[model_id])

    def stop(self, model_id: str) -> None:
        """Cancel the verification of the model, if any."""
        if scope := self._scopes.pop(model_id, None):
            scope.cancel()

    async def _verify(self, model_id: str, scope: trio.CancelScope) -> None:
        with scope:
            async with self._one_at_a_time:
                # a task that is cancelled in the moment it acquires the limiter runs on until its next checkpoint
                model = self._model(model_id)
                outcome = await verify(model, self._pools, self._directories) if model else None
            if outcome and self._scopes.get(model_id) is scope and (model := self._model(model_id)):
                del self._scopes[model_id]
                self._done(model, outcome)
