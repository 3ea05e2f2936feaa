"""What an operator should know about certificates: which of them run out, or have. Pure."""

from collections.abc import Iterator

from llama_orch.http.tls.expiry import Standing, standing, told
from orchctl.check.facts import Facts
from orchctl.check.findings import Finding, problem, warning, well

SUBJECT = "certificate"


def of_certificates(facts: Facts) -> Iterator[Finding]:
    """A line for each that was seen."""
    for certificate in facts.certificates:
        text = f"{certificate.whose} {told(certificate.ends, facts.looked_at)}"
        match standing(certificate.ends, facts.looked_at):
            case Standing.GOOD:
                yield well(SUBJECT, text)
            case Standing.ENDING:
                yield warning(SUBJECT, text, certificate.mend)
            case Standing.ENDED:
                yield problem(SUBJECT, text, certificate.mend)
