"""Findings of `orchctl check`: their levels, what makes a report of them, and their text."""

from collections.abc import Sequence
from enum import StrEnum

from llama_orch.contracts.base import Outbound
from llama_orch.contracts.meta import Readiness
from llama_orch.service.exit import ExitStatus
from orchctl.errors import CommandError
from orchctl.tables import one_line


class Level(StrEnum):
    """Only PROBLEM makes the exit status differ from 0."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Outbound):
    """One thing that was checked: its name, its state, and, unless the level is OK, what to do (`mend`)."""

    level: Level
    subject: str
    text: str
    mend: str = ""


class Report(Outbound):
    """The output of `orchctl check --json`."""

    url: str
    problems: int
    warnings: int
    findings: list[Finding]


def ok(subject: str, text: str) -> Finding:
    return Finding(level=Level.OK, subject=subject, text=text)


def warning(subject: str, text: str, mend: str) -> Finding:
    """It works, but may stop working, or does not work as intended."""
    return Finding(level=Level.WARNING, subject=subject, text=text, mend=mend)


def problem(subject: str, text: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(level=Level.PROBLEM, subject=subject, text=text, mend=mend)


def token_refused(result: object) -> bool:
    """Return whether a query failed because of the token."""
    return isinstance(result, CommandError) and result.status is ExitStatus.NO_PERMISSION


def format_reasons(readiness: Readiness) -> str:
    return "; ".join(map(one_line, readiness.reasons)) or "no reason reported"


def make_report(url: str, findings: Sequence[Finding]) -> Report:
    levels = [finding.level for finding in findings]
    counts = {"problems": levels.count(Level.PROBLEM), "warnings": levels.count(Level.WARNING)}
    return Report(url=url, findings=[*findings], **counts)


def format_findings(findings: Sequence[Finding]) -> str:
    width = max(map(len, Level))
    return "\n".join(_format_line(finding, width) for finding in findings)


def _format_line(finding: Finding, width: int) -> str:
    text = f"{finding.text.rstrip('.')}. {finding.mend}" if finding.mend else finding.text
    return f"{finding.level:{width}}  {one_line(f'{finding.subject}: {text}')}"
