"""orchctl check: what an operator looks at first, a line each, and what to do."""

import argparse
from collections.abc import Iterator, Sequence

from llama_orch.contracts.base import Outbound
from llama_orch.service.exit import ExitStatus
from orchctl.check.findings import Finding, Level, of_certificates, of_clock, of_pools, of_queen, of_token, of_version
from orchctl.check.local_node_findings import of_local
from orchctl.check.node_findings import of_nodes
from orchctl.check.observations import Observations, gathered
from orchctl.client import QueenClient
from orchctl.command import Commands
from orchctl.errors import CommandError
from orchctl.output import emit
from orchctl.tables import one_line


class Report(Outbound):
    """What `orchctl check --json` prints."""

    url: str
    problems: int
    warnings: int
    findings: list[Finding]


def add(commands: Commands) -> None:
    """Add the command `check`."""
    about = "queen, token, clocks, versions, nodes, pools and certificates"
    commands.add("check", check, f"look at {about}, and say what to do")


async def check(options: argparse.Namespace, queen: QueenClient) -> None:
    """A line for each thing that was looked at. Raises CommandError where there is a problem."""
    report = report_of(queen.url, [*found(await gathered(queen))])
    emit(f"{report.model_dump_json() if options.json else report_text(report.findings)}\n")
    if report.problems:
        raise CommandError(f"problems: {report.problems}, warnings: {report.warnings}", "", ExitStatus.UNAVAILABLE)


def found(facts: Observations) -> Iterator[Finding]:
    """All that the facts tell. Of a queen that does not answer nothing more is said."""
    yield from of_queen(facts)
    if not isinstance(facts.version, CommandError):
        for judge in (of_token, of_version, of_clock, of_nodes, of_pools):
            yield from judge(facts)
    yield from of_local(facts)
    yield from of_certificates(facts)


def report_of(url: str, findings: Sequence[Finding]) -> Report:
    """With the worst of them counted."""
    levels = [finding.level for finding in findings]
    counts = {"problems": levels.count(Level.PROBLEM), "warnings": levels.count(Level.WARNING)}
    return Report(url=url, findings=[*findings], **counts)


def report_text(findings: Sequence[Finding]) -> str:
    """One line a finding: its level, what it is about, how that is, and what to do."""
    width = max(map(len, Level))
    return "\n".join(_line(finding, width) for finding in findings)


def _line(finding: Finding, width: int) -> str:
    told = f"{finding.text.rstrip('.')}. {finding.mend}" if finding.mend else finding.text
    text = one_line(f"{finding.subject}: {told}")
    return f"{finding.level:{width}}  {text}"
