"""A model of the catalog as it is now, or once it is known whether its digest is right."""

import argparse

import trio

from llama_orch.contracts.catalog import CatalogModel, VerificationState
from llama_orch.service.exit import ExitStatus
from orchctl.failure import Failure
from orchctl.output import Line, show
from orchctl.queen import Queen, below, understood
from orchctl.tables import whole

POLL_S = 0.5
OUTCOMES = {
    VerificationState.MISMATCH: ExitStatus.DATA,
    VerificationState.UNVERIFIED: ExitStatus.DATA,
    VerificationState.UNAVAILABLE: ExitStatus.UNAVAILABLE,
}
"""How `--wait` ends where the digest is not right, was never given, or cannot be checked now."""


async def show_verified(options: argparse.Namespace, queen: Queen, body: bytes) -> None:
    """Show the model `options.id`; `body` is how it was a moment ago. Raises Failure, with `--wait` unless verified."""
    if options.wait:
        body = await _outcome(options.id, queen, body)
    show(options.json, body, CatalogModel, whole)
    found = understood(CatalogModel, body).verification
    if options.wait and found.state in OUTCOMES:
        actual = f": {found.actual}" if found.state is VerificationState.MISMATCH and found.actual else ""
        reason = f"{found.reason or found.state}{actual}"
        raise Failure(f"{options.id} is not verified: {reason}", "", OUTCOMES[found.state])


async def _outcome(name: str, queen: Queen, body: bytes) -> bytes:
    line = Line()
    try:
        while understood(CatalogModel, body).verification.state is VerificationState.PENDING:
            line.show(f"{name} is being verified")
            await trio.sleep(POLL_S)
            body = await queen.get(below("/v2/catalog/models", name))
        return body
    finally:
        line.clear()
