"""orchctl check: check an installation, one line for each finding, with what to do."""

import argparse
from collections.abc import Iterator, Sequence

from llama_orch.service.exit import ExitStatus
from orchctl.check.certificates import certificate_findings
from orchctl.check.findings import Finding, format_findings, make_report
from orchctl.check.local_node_findings import local_node_findings
from orchctl.check.node_findings import node_findings
from orchctl.check.observations import Observations, observe
from orchctl.check.pool_findings import pool_findings
from orchctl.check.queen_findings import clock_findings, readiness_findings, token_findings, version_findings
from orchctl.client import QueenClient
from orchctl.command import CliCommand
from orchctl.errors import CommandError
from orchctl.output import write


async def check(options: argparse.Namespace, queen: QueenClient) -> None:
    """Print the findings. Raises CommandError if one is a problem."""
    print_report(options, queen.url, [*all_findings(await observe(queen))])


def print_report(options: argparse.Namespace, url: str, findings: Sequence[Finding]) -> None:
    """Print findings as lines or as JSON. Raises CommandError if one is a problem."""
    report = make_report(url, findings)
    write(f"{report.model_dump_json() if options.json else format_findings(report.findings)}\n")
    if report.problems:
        raise CommandError(f"problems: {report.problems}, warnings: {report.warnings}", "", ExitStatus.UNAVAILABLE)


def all_findings(observed: Observations) -> Iterator[Finding]:
    """Judge the observations. If the queen does not answer, only this machine and certificates are judged besides."""
    yield from readiness_findings(observed)
    if not isinstance(observed.version, CommandError):
        for findings in (token_findings, version_findings, clock_findings, node_findings, pool_findings):
            yield from findings(observed)
    yield from local_node_findings(observed)
    yield from certificate_findings(observed.certificates, observed.now)


CHECK = CliCommand("check", "check queen, token, clocks, versions, nodes, pools and certificates", check)
