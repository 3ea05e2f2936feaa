"""Waiting for the verification of a catalog model's digest."""

import argparse

import trio

from llama_orch.contracts.catalog import CatalogModel, VerificationState
from llama_orch.service.exit import ExitStatus
from orchctl.client import QueenClient, build_path, parse_response
from orchctl.errors import CommandError
from orchctl.output import StatusLine, print_response
from orchctl.tables import format_record

PATH = "/v2/catalog/models"
POLL_S = 0.5
FAILURE_STATUS = {
    VerificationState.MISMATCH: ExitStatus.DATA,
    VerificationState.UNVERIFIED: ExitStatus.DATA,
    VerificationState.UNAVAILABLE: ExitStatus.UNAVAILABLE,
}


async def print_verified(options: argparse.Namespace, queen: QueenClient, body: bytes) -> None:
    """Print the model `options.id`, whose last known state is `body`.

    With --wait, wait until its verification ends. Raises CommandError, with --wait also if it is not verified.
    """
    if options.wait:
        body = await _wait_for_end(options.id, queen, body)
    print_response(options.json, body, CatalogModel, format_record)
    verification = parse_response(CatalogModel, body).verification
    if options.wait and verification.state in FAILURE_STATUS:
        mismatch = verification.state is VerificationState.MISMATCH and verification.actual
        reason = f"{verification.reason or verification.state}{f': {verification.actual}' if mismatch else ''}"
        message = f"{options.id} is not verified: {reason}"
        raise CommandError(message, "", FAILURE_STATUS[verification.state])


async def _wait_for_end(name: str, queen: QueenClient, body: bytes) -> bytes:
    line = StatusLine()
    try:
        while parse_response(CatalogModel, body).verification.state is VerificationState.PENDING:
            line.show(f"verifying {name}")
            await trio.sleep(POLL_S)
            body = await queen.get(build_path(PATH, name))
        return body
    finally:
        line.clear()
